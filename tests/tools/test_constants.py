"""A reference at another size: what is replaced in its text, and what can't be."""

import pytest

from knowledge.errors import BadInput
from tools.constants import with_constants

SOURCE = """\
import torch

ROWS, COLUMNS = 4096, 1024  # of the matrix
SCALE: float = 0.5
SHAPE = (
    2,
    3,
)
KIND = "exact"
EPSILON = 1e-6
DERIVED = 2 * 3
TWICE = 1
TWICE = 2


class Model(torch.nn.Module):
    def forward(self, x):
        return x + EPSILON


def get_inputs():
    return [torch.randn(ROWS, COLUMNS) * SCALE]
"""


def changed(**values: object) -> str:
    return with_constants(SOURCE, values, "op.py")


def complaint(**values: object) -> str:
    with pytest.raises(BadInput) as caught:
        changed(**values)
    message = str(caught.value)
    assert message.startswith("op.py: ")
    assert "\n" not in message
    return message


def test_a_constant_is_replaced_and_nothing_else() -> None:
    text = changed(COLUMNS=7, SCALE=2)
    assert "ROWS, COLUMNS = 4096, 7  # of the matrix" in text
    assert "SCALE: float = 2\n" in text
    undone = text.replace("4096, 7", "4096, 1024").replace("float = 2", "float = 0.5")
    assert undone == SOURCE


def test_a_literal_over_several_lines_is_replaced_whole() -> None:
    text = changed(SHAPE=[4, 5, 6], KIND="tanh")
    assert "SHAPE = [4, 5, 6]\nKIND = 'tanh'\n" in text


def test_the_file_as_it_is_needs_no_constants() -> None:
    assert changed() == SOURCE


def test_letters_of_several_bytes_before_a_constant_shift_nothing() -> None:
    assert with_constants('NAME, N = "λµ", 4\n', {"N": 8}, "op.py") == 'NAME, N = "λµ", 8\n'


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"COLUMN": 3}, 'has no constant COLUMN at its top. Did you mean "COLUMNS"?'),
        ({"zzz": 3}, "It has ROWS, COLUMNS, SCALE"),
        ({"DERIVED": 3}, "has no constant DERIVED"),
        ({"TWICE": 3}, "has no constant TWICE"),
        ({"EPSILON": 1e-3}, "class Model reads EPSILON, which a workload therefore can't change."),
        ({"ROWS": 1.5}, "ROWS is 4096, and can't become 1.5."),
        ({"ROWS": True}, "ROWS is 4096, and can't become True."),
        ({"ROWS": "many"}, "ROWS is 4096, and can't become 'many'."),
        ({"KIND": 3}, "KIND is 'exact', and can't become 3."),
        ({"SHAPE": 3}, "SHAPE is (2, 3), and can't become 3."),
    ],
)
def test_what_cannot_be_changed_is_one_line(values: dict[str, object], said: str) -> None:
    assert said in complaint(**values)


def test_a_file_without_constants_is_told_how_to_have_some() -> None:
    with pytest.raises(BadInput, match="Give its sizes names first"):
        with_constants("def get_inputs(): ...\n", {"N": 3}, "op.py")


def test_a_file_that_is_not_python_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"is not Python: .* on line 1"):
        with_constants("class Model(:\n", {"N": 3}, "op.py")
