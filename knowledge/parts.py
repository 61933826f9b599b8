"""Parts of an op that has no graph as a whole: modules inside it that have one.

Each is made fast like an op; what runs them, in which order and how often, stays the op's own
Python.
"""

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from knowledge.opgraph import Frozen, OpGraph

# Strict members: 2.0 stays a float and True a bool on their way through JSON.
Plain = StrictBool | StrictInt | StrictFloat | StrictStr | None


class Part(Frozen):
    """Modules of one op that are alike, as one forward of the op calls them.

    `paths` are their dotted names in the op. `kind` is their class as the op's own file would
    write it, e.g. `torch.nn.Linear`; `arguments` are its forward's, and `constants` the values of
    those that are no tensors. `share` is the part of the op's time that calls of these very shapes
    take, all together; there are `calls` of them. `call_ms` is for one of these, as for an op.
    """

    paths: tuple[str, ...]
    kind: str
    arguments: tuple[str, ...]
    defaults: dict[str, Plain] = Field({})
    constants: dict[str, Plain] = Field({})
    graph: OpGraph
    share: float
    calls: int
    call_ms: dict[str, float] = Field({})

    @property
    def name(self) -> str:
        """What it is called in plans: the first of its paths."""
        return self.paths[0]

    @property
    def title(self) -> str:
        """All of its paths, for a reader."""
        return ", ".join(self.paths)
