import json
import math

import pytest
import torch

from tools.runner.values import CannotTravel, decode, encode


def test_arguments_come_back_as_they_were():
    tensor = torch.arange(3)
    given = (
        [1, 2.5, True, None, "text", -0.0, math.inf, 3 + 4j],
        {"a": (1, [2]), 3: torch.float16},
        tensor,
        torch.device("cpu"),
        torch.channels_last,
    )
    tensors = []
    text = json.dumps(encode(given, tensors))
    back = decode(json.loads(text), tuple(tensors))
    assert back[2] is tensors[0]
    assert back[0] == given[0]
    assert [type(item) for item in back[0]] == [type(item) for item in given[0]]
    assert math.copysign(1, back[0][5]) == -1
    assert back[1] == given[1]
    assert back[3:] == given[3:]


def test_nan_travels():
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan, []))), ()))


def test_what_is_not_plain_data_is_refused_by_name():
    with pytest.raises(CannotTravel, match="function"):
        encode([lambda: 0], [])
