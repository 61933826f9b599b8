"""A candidate: one Python module with `class ModelNew`, as text that nothing here loads."""

from hashlib import sha256
from typing import Literal

from knowledge.opgraph import Frozen

Backend = Literal["torch", "cpp", "triton", "cuda"]


class Candidate(Frozen):
    """A kernel as source text.

    `source` defines `ModelNew`, with the constructor and forward of the reference's `Model`.
    `backend` is the language that does the work. `labels` state what a reader must know before she
    ships it, e.g. `assumes: frozen weights`. `author` wrote it: `playbook`, or a model's id.
    """

    source: str
    backend: Backend
    labels: tuple[str, ...] = ()
    author: str = "playbook"

    @property
    def digest(self) -> str:
        """SHA-256 of the source: the candidate's identity everywhere."""
        return sha256(self.source.encode()).hexdigest()
