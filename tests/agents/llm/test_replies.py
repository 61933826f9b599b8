"""What models answer, and what is made of it."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.tool import invalid_tool_call

from agents.llm.replies import (
    Malformed,
    Plans,
    answered,
    newest_draft,
    read_form,
    read_module,
    text_of,
)
from tests.agents.llm.scripted import fenced, says

MODULE = """import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return x
"""
DRAFT = {
    "title": "One sweep",
    "technique": "fused loop",
    "instructions": "Sweep each row once and keep it in L1.",
    "expected_speedup": 2,
    "arithmetic": "half the bytes",
}
IN_JSON = json.dumps({"plans": [DRAFT]})


def edit(search: str, replacement: str) -> str:
    return f"<<<<<<< SEARCH\n{search}=======\n{replacement}>>>>>>> REPLACE"


def test_the_last_fenced_module_is_the_answer() -> None:
    text = (
        f"First:\n{fenced(MODULE.replace('return x', 'return -x'))}\nNo, better:\n{fenced(MODULE)}"
    )
    assert read_module(text, None) == MODULE


def test_other_blocks_are_passed_over() -> None:
    assert read_module(f"{fenced(MODULE)}\nRun it:\n```bash\npytest\n```\n", None) == MODULE
    usage = fenced("model = ModelNew().eval()\nprint(model(x))\n")
    assert read_module(f"{fenced(MODULE)}\nUsage:\n{usage}", None) == MODULE


def test_a_fence_inside_a_line_ends_nothing() -> None:
    module = MODULE.replace("import torch\n", 'import torch\n\nNOTE = "use ```cpp here"\n')
    assert read_module(fenced(module), None) == module


def test_thoughts_are_no_answer() -> None:
    thought = (
        f"<think>maybe\n{fenced(MODULE.replace('return x', 'return 2'))}</think>\n{fenced(MODULE)}"
    )
    assert read_module(text_of(AIMessage(thought)), None) == MODULE


def test_edits_are_made_to_the_parent_one_after_the_other() -> None:
    text = "\n".join(
        [
            edit("        return x\n", "        y = x + 1\n        return y\n"),
            "and then",
            edit("y = x + 1\n", "y = x + 2\n"),
        ]
    )
    assert read_module(text, MODULE).endswith("        y = x + 2\n        return y\n")


def test_an_edit_may_take_lines_away() -> None:
    assert "forward" not in read_module(
        edit("    def forward(self, x):\n        return x\n", "    pass\n"), MODULE
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I would rather not.", "no fenced block"),
        ("```python\nprint(1)\n```", "no fenced block defines ModelNew"),
        ("```python\nclass ModelNew:\n    def forward", "cut off"),
        (edit("not there\n", "x\n"), "no line `not there`"),
        (edit("  \n", "y\n"), "empty"),
        ("<<<<<<< SEARCH\nreturn x\n", "has no ======="),
    ],
)
def test_what_can_not_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_module(text, MODULE)


def test_an_edit_that_fits_twice_fits_nowhere() -> None:
    with pytest.raises(Malformed, match="`return x` is there 2 times"):
        read_module(edit("        return x\n", "        return -x\n"), MODULE + MODULE)


def test_of_an_edit_that_fits_nowhere_the_line_that_is_missing_is_named() -> None:
    with pytest.raises(Malformed, match=r"edit 1: the module has no line `        stop\(\)`"):
        read_module(edit("        return x\n        stop()\n", "        pass\n"), MODULE)


def test_there_is_nothing_to_edit_without_a_parent() -> None:
    with pytest.raises(Malformed, match="no module to edit"):
        read_module(edit("a\n", "b\n"), None)


def test_a_draft_is_the_newest_module_and_edits_go_on_from_it() -> None:
    dialogue = [
        HumanMessage("write"),
        AIMessage(fenced(MODULE)),
        HumanMessage("go on"),
        AIMessage(edit("        return x\n", "        return x + 1\n")),
        AIMessage("That is all."),
    ]
    draft = newest_draft(dialogue, None)
    assert draft is not None
    assert draft.endswith("return x + 1\n")


def test_a_draft_may_come_as_an_argument() -> None:
    assert newest_draft([says("", ("verify", {"source": MODULE}))], None) == MODULE


@pytest.mark.parametrize(
    "reply",
    [
        says("", ("Plans", {"plans": [DRAFT]})),
        AIMessage(f"```json\n{IN_JSON}\n```"),
        AIMessage(f"I plan this: {IN_JSON} as said."),
        AIMessage(f"I lean on [1] and [3]. {IN_JSON}"),
        AIMessage(f"x is float32[4, 4], so\n</think>\n{IN_JSON}"),
    ],
)
def test_a_form_is_read_from_a_call_or_from_json_in_the_text(reply: AIMessage) -> None:
    assert read_form(reply, Plans).plans[0].title == "One sweep"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (AIMessage("Let me think about kernels."), "holds no JSON"),
        (says("", ("Plans", {"plans": [{"title": "One sweep"}]})), "plans.0.technique: Field"),
        (AIMessage('{"plans": "many"}'), "plans: Input should be"),
        (says("", ("Plans", {})), "plans: Field required"),
        (
            AIMessage(
                "",
                invalid_tool_calls=[
                    invalid_tool_call(name="Plans", args='{"plans": [', id="c", error=None)
                ],
            ),
            "not JSON",
        ),
    ],
)
def test_a_form_that_does_not_fit_says_where(reply: AIMessage, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read_form(reply, Plans)


def test_every_call_is_owed_an_answer_malformed_ones_too() -> None:
    reply = AIMessage(
        "",
        tool_calls=[{"name": "Plans", "args": {}, "id": "a"}],
        invalid_tool_calls=[invalid_tool_call(name="device", args="{", id="b", error=None)],
    )
    assert [message.tool_call_id for message in answered(reply, "once more")] == ["a", "b"]  # type: ignore[attr-defined]
    assert answered(AIMessage("words"), "once more") == [HumanMessage("once more")]
