"""`python -m knowledge.experience`: list, export, import and drop, and one line for a mistake."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from knowledge.errors import BadInput
from knowledge.experience.__main__ import app
from knowledge.store import Library
from tests.knowledge.test_memory import LOOP, tried, wrong

WON = tried(confirmed=True, won=True)
FAILED = wrong(trial=2)
OTHER = tried(run_id="r2", fingerprint="g", signature="layer_norm", device="cpu-64c",
              confirmed=True, won=True)  # fmt: skip


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """The user's library, with two runs in it; it has no pages, so that it is quick to build."""
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("COLUMNS", "200")
    opened = Library.open(project=tmp_path)
    for run in ([WON, FAILED], [OTHER]):
        opened.memory.keep(run)
    for one in (WON, OTHER):
        assert one.lesson is not None
        opened.remember(one.lesson)
    yield opened
    opened.close()


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def lessons(library: Library, signature: str = "softmax mul", device: str = "cpu-2c") -> list[str]:
    return [one.run_id for one in library.lessons_like(signature, device)]


def test_a_list_shows_trials_and_what_they_amount_to(library: Library) -> None:
    code, out, _ = command("list")
    assert code == 0
    for shown in ("softmax mul", "cpu-2c", "won", "wrong_output", "2.00x (1.90 to 2.10)"):
        assert shown in out
    assert "won 2 of 2 runs" in out


def test_a_list_as_json_is_one_document(library: Library) -> None:
    code, out, _ = command("list", "--json", "--op", "softmax mul")
    document = json.loads(out)
    assert (code, len(document["trials"])) == (0, 2)
    assert document["recipes"][0]["failures"] == {"wrong_output": 1}
    assert document["repairs"] == []


def test_an_empty_memory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "empty"))
    assert command("list") == (0, "Nothing is remembered of that.\n", "")


def test_what_is_exported_and_dropped_comes_back_by_import(
    library: Library, tmp_path: Path
) -> None:
    file = str(tmp_path / "trials.jsonl")
    before = library.memory.entries()
    assert command("export", file)[:2] == (0, f"3 trials written to {file}\n")
    assert command("drop", "--all", "--yes")[:2] == (0, "3 trials and 2 lessons dropped\n")
    assert (library.memory.entries(), lessons(library)) == ([], [])
    assert command("import", file)[:2] == (0, f"3 trials new of 3 in {file}\n")
    assert library.memory.entries() == before
    assert lessons(library) == ["r1"]
    assert command("import", file)[:2] == (0, f"0 trials new of 3 in {file}\n")


@pytest.mark.parametrize(
    ("options", "left"),
    [(("--run", "r1"), ["r2"]), (("--device", "cpu-64c"), ["r1", "r1"]),
     (("--op", "g"), ["r1", "r1"]), (("--op", "softmax mul", "--device", "cpu-2c"), ["r2"]),
     (("--run", "r1", "--device", "cpu-64c"), ["r1", "r1", "r2"])],
)  # fmt: skip
def test_what_is_dropped_teaches_no_more(
    library: Library, options: tuple[str, ...], left: list[str]
) -> None:
    assert command("drop", *options)[0] == 0
    assert [one.run_id for one in library.memory.entries()] == left
    assert lessons(library) == (["r1"] if "r1" in left else [])
    assert lessons(library, "layer_norm", "cpu-64c") == (["r2"] if "r2" in left else [])


def test_dropping_the_latest_account_brings_the_earlier_one_back(library: Library) -> None:
    later = WON.model_copy(update={"run_id": "r3", "speedup": 4.0})
    assert later.lesson is not None
    library.memory.keep([later])
    library.remember(later.lesson)
    assert lessons(library) == ["r3"]
    command("drop", "--run", "r3")
    assert lessons(library) == ["r1"]


BAD_LINES = {
    "no JSON": ("{half", "Invalid JSON"),
    "a missing key": ('{"run_id": "r"}', "Field required"),
    "an unknown key": (tried().model_dump_json()[:-1] + ', "opinion": 1}', "opinion"),
    "a negative trial": (
        tried().model_dump_json().replace('"trial":1', '"trial":-1'),
        "greater than or equal to 1",
    ),
}


@pytest.mark.parametrize(("line", "told"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_named_and_nothing_is_imported(
    library: Library, tmp_path: Path, line: str, told: str
) -> None:
    file = tmp_path / "trials.jsonl"
    good = tried(run_id="new", confirmed=True, steps=(LOOP, LOOP)).model_dump_json()
    file.write_text(f"{good}\n{line}\n{good}\n")
    before = library.memory.entries()
    code, out, err = command("import", str(file))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{file}: line 2" in err
    assert told in err
    assert library.memory.entries() == before
    assert lessons(library) == ["r1"]


def test_an_import_that_is_cut_off_teaches_when_it_is_done_again(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_text(tried(run_id="new", confirmed=True, won=True).model_dump_json() + "\n")

    def away(*_: object) -> None:
        raise BadInput("library", "does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(Library, "remember", away)
        assert command("import", str(file))[0] == 2
    assert "new" not in lessons(library)
    assert command("import", str(file))[0] == 0
    assert "new" in lessons(library)


def test_a_lesson_of_a_later_version_outlives_a_drop(library: Library) -> None:
    file = library.folder / "lessons.jsonl"
    later = json.dumps({"of": "a later version", "text": "a\u2028b"}, ensure_ascii=False)
    file.write_text(f"{file.read_text()}{later}\n")
    assert command("drop", "--run", "r1")[0] == 0
    assert later in file.read_text().split("\n")
    assert lessons(library) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("drop",), "needs to know what"), (("drop", "--all"), "Add --yes"),
     (("drop", "--all", "--yes", "--run", "r1"), "needs to know what"),
     (("import", "nowhere.jsonl"), "cannot be read"),
     (("export", "nowhere/trials.jsonl"), "cannot be written")],
)  # fmt: skip
def test_a_mistake_is_one_line_and_changes_nothing(
    library: Library, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert len(library.memory.entries()) == 3


def test_a_damaged_file_is_said_and_the_command_goes_on(library: Library) -> None:
    library.memory.file.write_bytes(b"no database" * 1000)
    code, out, err = command("list")
    assert (code, out) == (0, "Nothing is remembered of that.\n")
    assert "set aside" in err
