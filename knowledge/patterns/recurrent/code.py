"""The C++ of a recurrent net: all time steps of all layers in one persistent function.

The text is fixed but for the cell, and for what is known of the net (layers, directions, which
tensors there are); sizes come at run time.
"""

from dataclasses import dataclass

from knowledge.loops.mathematics import helpers
from knowledge.patterns.recurrent.cpp import BODY, CELLS, ENTRY, INCLUDES
from knowledge.tiles import TILE_CPP

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Net:
    """What is compiled in of a recurrent net.

    `given` are the optional tensors that there are: initial states `h0`, `c0` that are read (the
    others are zero), and results `output`, `h_last`, `c_last` that are written. `split` says what
    threads divide: `rows` of the batch, `units`, or (`auto`) rows where each gets enough of them.
    """

    cell: str
    layers: int
    directions: int
    has_bias: bool
    batch_first: bool
    given: tuple[str, ...]
    split: str = "auto"

    @property
    def weights(self) -> int:
        """The number of weight and bias tensors."""
        return self.layers * self.directions * (4 if self.has_bias else 2)


def source(net: Net, name: str) -> str:
    """The translation unit; its function takes x, given states, weights, results, sizes."""
    body = _fill(BODY, _constants(net))
    names = [f"w{i}" for i in range(net.weights)]
    reads = [one for one in ("h0", "c0") if one in net.given]
    writes = [one for one in ("output", "h_last", "c_last") if one in net.given]
    parameters = [f"const float* {one}," for one in [*reads, *names]]
    parameters += [f"float* {one}," for one in writes]
    missing = [one for one in ("h0", "c0") if one not in net.given]
    absent = [f"    const float* const {one} = nullptr;" for one in missing]
    missing = [one for one in ("output", "h_last", "c_last") if one not in net.given]
    absent += [f"    float* const {one} = nullptr;" for one in missing]
    entry = _fill(
        ENTRY,
        {"NAME": name, "PARAMETERS": " ".join(parameters), "WEIGHTS": ", ".join(names)},
    )
    start = "    const Sizes sizes"
    entry = entry.replace(start, "\n".join([*absent, start]), 1)
    text = TILE_CPP + body + entry
    return INCLUDES + helpers(text, inline=True) + text


def _constants(net: Net) -> dict[str, str]:
    flags = {"BIAS": net.has_bias, "BATCH_FIRST": net.batch_first}
    flags |= {"LSTM": net.cell == "lstm", "GRU": net.cell == "gru"}
    numbers = {"GATES": GATES[net.cell], "LAYERS": net.layers, "DIRECTIONS": net.directions}
    parts = {"auto": "sizes.batch / ROWS", "units": "int64_t(1)", "rows": "sizes.batch"}
    return {
        **{key: str(value).lower() for key, value in flags.items()},
        **{key: str(value) for key, value in numbers.items()},
        "CELL": CELLS[net.cell],
        "CHUNK": "96",
        "ROW_PARTS": parts[net.split],
    }


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
