"""What an MCP client may look at, and how its mistakes are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from graph.mcp.hall import Hall
from graph.mcp.lookup import FILES
from tests.graph.conftest import RIGHT
from tests.graph.mcp_bench import RELU, ask, refused, settings, with_client

TOOLS = {
    "optimize", "start_task", "submit_candidate", "task_status", "finish", "judge", "compile",
    "profile", "search_knowledge", "device",
}  # fmt: skip


@pytest.fixture
def hall(tmp_path: Path, new_library: Callable[[], Path]) -> Hall:
    return Hall(settings(tmp_path, new_library()))


def test_every_tool_says_what_it_is_for_and_every_argument_too(hall: Hall) -> None:
    async def talk(client: Client) -> Any:
        return (await client.list_tools()).tools

    tools = with_client(hall, talk)
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert len(tool.description or "") > 80, tool.name
        assert tool.output_schema is not None, tool.name
        for name, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), f"{tool.name}: {name}"


def test_a_search_gives_passages_with_pages_that_can_be_read(hall: Hall) -> None:
    async def talk(client: Client) -> tuple[dict[str, Any], str]:
        found = await ask(
            client, "search_knowledge", query="softmax faults a page for every 4 KiB", count=3
        )
        page = await client.read_resource(found["passages"][0]["uri"])
        return found, page.contents[0].text  # type: ignore[union-attr]

    found, page = with_client(hall, talk)
    assert len(found["passages"]) == 3
    assert found["passages"][0]["text"].split("\n")[0][:40] in page


def test_a_device_is_told_with_the_source_of_every_figure(hall: Hall) -> None:
    async def talk(client: Client) -> tuple[dict[str, Any], dict[str, Any], str]:
        here = await ask(client, "device", name="cpu")
        there = await ask(client, "device", name="cuda:h200-sxm")
        return here, there, await refused(client, "device", name="h2000")

    here, there, unknown = with_client(hall, talk)
    assert here["present"]
    assert here["cores"] >= 1
    assert not there["present"]
    assert "(" in there["figures"]["memory_bandwidth"]
    assert "is unknown" in unknown


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a misspelt tool": ("optimise", {}, 'did you mean "optimize"'),
    "a misspelt argument": ("optimize", {**RELU, "trial": 3}, 'did you mean "trials"'),
    "no op": ("optimize", {}, "exactly one of"),
    "two ops": ("optimize", {**RELU, "reference": "x.py"}, "exactly one of"),
    "a budget of nothing": ("optimize", {**RELU, "trials": 0}, "trials"),
    "a misspelt setting": ("optimize", {**RELU, "settings": {"stratgy": "beam"}}, "strategy"),
    "an unknown device": ("optimize", {**RELU, "target": "h100"}, "is unknown"),
    "a reference that is not there": ("start_task", {"reference": "nowhere.py"}, "does not exist"),
    "no candidate": ("judge", {**RELU, "candidate": "import torch\n"}, "ModelNew"),
    "no such file": ("judge", {**RELU, "candidate": "nowhere.py"}, "cannot be read"),
    "a task that is not open": ("finish", {"task": "softmax"}, "is not open here"),
    "a run that is none": ("optimize", {"resume": "../secrets"}, "is no run"),
    "inputs beside a reference": (
        "optimize", {"reference": "class Model:\n    pass\n", "inputs": [{"shape": [2]}]},
        "belong to op and module",
    ),
    "a budget that is no section": (
        "optimize", {**RELU, "trials": 3, "settings": {"budget": 5}}, "is a section",
    ),
    "more beside resume": ("optimize", {"resume": "x", **RELU}, "goes alone"),
    "a model and a guest": (
        "start_task", {**RELU, "settings": {"model": "nobody:home"}}, "no provider",
    ),
    "Triton without an op": ("compile", {"candidate": RIGHT + "# @triton.jit\n"}, "reference"),
}  # fmt: skip


@pytest.mark.parametrize(("tool", "given", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_clear_line_and_starts_nothing(
    hall: Hall, tool: str, given: dict[str, Any], told: str
) -> None:
    async def talk(client: Client) -> str:
        return await refused(client, tool, **given)

    assert told in with_client(hall, talk)
    assert not [run for run in hall.runs.iterdir() if (run / "task.yaml").exists()]


@pytest.mark.parametrize(
    "uri",
    [
        "kernelwright://pages/../../pyproject.toml",
        "kernelwright://pages/%2e%2e/%2e%2e/README.md",
        "kernelwright://pages//etc/passwd",
        "kernelwright://pages/store.py",
        "kernelwright://runs/../report",
        "kernelwright://runs/%2e%2e%2f%2e%2e/report",
        "kernelwright://runs/nothing/report",
        "kernelwright://runs/one/checkpoint.sqlite",
        "kernelwright://runs/one/..%2ftask.yaml",
        "kernelwright://runs/linked/report",
    ],
)
def test_nothing_but_pages_and_reports_can_be_read(hall: Hall, uri: str) -> None:
    run = hall.runs / "one"
    run.mkdir()
    (run / "task.yaml").write_text("name: one\n")
    (run / "checkpoint.sqlite").write_text("secret")
    (hall.runs / "report.html").write_text("secret")

    async def talk(client: Client) -> str:
        with pytest.raises(MCPError) as refusal:
            await client.read_resource(uri)
        return str(refusal.value)

    assert "secret" not in with_client(hall, talk)


def test_reports_of_runs_are_resources(hall: Hall) -> None:
    run = hall.runs / "one"
    (run / "best").mkdir(parents=True)
    (run / "task.yaml").write_text("name: one\n")
    for path in FILES.values():
        (run / path).write_text(f"this is {path}")

    async def talk(client: Client) -> tuple[str, list[Any]]:
        listed = await client.read_resource("kernelwright://runs")
        files = [await client.read_resource(f"kernelwright://runs/one/{name}") for name in FILES]
        return listed.contents[0].text, [one.contents[0] for one in files]  # type: ignore[union-attr]

    listed, contents = with_client(hall, talk)
    assert "kernelwright://runs/one/report" in listed
    assert [one.text for one in contents] == [f"this is {path}" for path in FILES.values()]
    assert contents[0].mime_type == "text/html"


def test_templates_and_lists_are_announced(hall: Hall) -> None:
    async def talk(client: Client) -> tuple[set[str], set[str]]:
        templates = await client.list_resource_templates()
        listed = await client.list_resources()
        return (
            {one.uri_template for one in templates.resource_templates},
            {str(one.uri) for one in listed.resources},
        )

    templates, listed = with_client(hall, talk)
    assert "kernelwright://pages/{+name}" in templates
    assert "kernelwright://runs/{run}/report" in templates
    assert listed == {"kernelwright://pages", "kernelwright://runs"}
