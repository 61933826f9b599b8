"""A candidate: one Python module with `class ModelNew`, as text that nothing here loads."""

from hashlib import sha256
from typing import Literal

from knowledge.opgraph import Frozen

Backend = Literal["torch", "cpp", "triton", "cuda"]
# What a module shows that has kernels of its own, by their language.
MARKS: dict[Backend, str] = {"cpp": "cpp_kernel", "triton": "@triton.jit", "cuda": "cuda_kernel"}


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


def backend_of(source: str) -> Backend:
    """The language that does the work in a module, by its marks."""
    return next((language for language, mark in MARKS.items() if mark in source), "torch")
