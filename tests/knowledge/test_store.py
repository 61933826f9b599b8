"""The library: finds, keeps in step, and survives other writers, kills and broken files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from knowledge import passage
from knowledge.catalogue import default_place, load_catalogue, save_catalogue
from knowledge.device import load_devices
from knowledge.embed import HashedWords
from knowledge.errors import BadInput
from knowledge.passage import tag_groups
from knowledge.store import Library
from tests.knowledge.test_memory import tried

INDEX = "import sys; from pathlib import Path; from knowledge.store import Library; "
OPEN = "library = Library.open(Path(sys.argv[1]), project=Path(sys.argv[2])); "


def in_another_process(library: Library, project: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INDEX + OPEN + code, str(library.folder), str(project)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def sources(library: Library, query: str, **narrowed: str) -> list[str]:
    return [passage.source for passage in library.search(query, 10, **narrowed)]


def documents(folder: Path, count: int, word: str) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.md").write_text(f"# Page {number}\n{word} number {word}{number}\n")
    return folder


def test_a_newcomers_first_search_needs_no_indexing(library: Library) -> None:
    best = library.search("running maximum of a softmax")[0]
    assert best.source == "docs/cpu/softmax.md#running maximum"
    assert best.title == "Softmax in one sweep"
    assert (best.kind, best.devices, best.ops, best.bottlenecks) == (
        "pattern", ("cpu",), ("softmax",), ("memory",),
    )  # fmt: skip
    assert 0.0 < best.score <= 1.0


def test_results_are_ordered_by_score_and_at_most_k(library: Library) -> None:
    scores = [passage.score for passage in library.search("softmax rows maximum", 3)]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_one_page_fills_at_most_two_places(library: Library) -> None:
    pages = [
        source.split("#")[0] for source in sources(library, "softmax maximum denominator rows")
    ]
    assert pages.count("docs/cpu/softmax.md") == 2


def test_a_second_passage_of_a_page_waits_until_each_page_has_one(library: Library) -> None:
    found = library.search("softmax maximum denominator rows", 4)
    assert len({passage.source.split("#")[0] for passage in found}) == 4
    assert found == sorted(found, key=lambda passage: -passage.score)


def test_a_search_narrowed_by_kind_finds_that_kind_only(library: Library) -> None:
    assert {p.kind for p in library.search("softmax", kind="repair")} == {"repair"}


def test_a_cpu_search_leaves_out_gpu_pages_and_keeps_general_ones(library: Library) -> None:
    found = sources(library, "summation banks warp", device="intel-xeon-2c")
    assert "docs/general.md" in found
    assert "docs/gpu/banks.md" not in found


def test_a_gpus_name_finds_pages_on_its_kind(library: Library) -> None:
    found = sources(library, "shared memory banks", device="cuda:h200-sxm")
    assert found[0] == "docs/gpu/banks.md"
    assert "repairs/gomp.md" not in found


def test_an_operators_full_name_narrows_like_its_bare_one(library: Library) -> None:
    assert sources(library, "rows", op="aten.softmax.int") == sources(library, "rows", op="softmax")
    assert "docs/cpu/softmax.md" not in sources(library, "running maximum", op="conv2d")


def test_a_search_narrowed_by_bottleneck_keeps_pages_without_one(library: Library) -> None:
    found = sources(library, "banks maximum order", bottleneck="latency")
    assert "docs/gpu/banks.md" in found
    assert "docs/general.md" in found
    assert not any(source.startswith("docs/cpu/softmax.md") for source in found)


def test_pattern_cards_and_notes_are_found_as_patterns(library: Library) -> None:
    found = sources(library, "fused loop over rows", kind="pattern")
    assert {"patterns/fused/card.toml", "patterns/fused/notes.md"} <= set(found)


@pytest.mark.parametrize(("query", "k"), [("", 5), ("   ", 5), ("softmax", 0), ("softmax", -1)])
def test_asking_for_nothing_gives_nothing(library: Library, query: str, k: int) -> None:
    assert library.search(query, k) == []


def test_a_query_of_no_known_words_is_no_error(library: Library) -> None:
    assert all(0.0 <= passage.score <= 1.0 for passage in library.search("?! \x00 \ud83d"[:4]))


def test_an_empty_project_has_no_answers(tmp_path: Path) -> None:
    library = Library.open(tmp_path / "library", project=tmp_path)
    assert library.search("softmax") == []
    library.close()


def test_a_second_refresh_reads_nothing(library: Library) -> None:
    first, second = library.refresh(), library.refresh()
    assert (first.read, first.rebuilt) == (6, "first use")
    assert (second.read, second.unchanged, second.rebuilt) == (0, 6, "")
    assert second.passages == first.passages


def test_a_changed_page_replaces_its_passages(library: Library, project: Path) -> None:
    library.refresh()
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    report = library.refresh()
    assert (report.read, report.unchanged) == (1, 5)
    assert library.search("quinces", 1)[0].title == "Marmalade"
    assert all(
        "Pairwise" not in passage.text for passage in library.search("pairwise summation", 10)
    )


def test_a_vanished_page_is_dropped(library: Library, project: Path) -> None:
    library.refresh()
    (project / "repairs/gomp.md").unlink()
    assert library.refresh().dropped == 1
    assert "repairs/gomp.md" not in sources(library, "undefined symbol GOMP_parallel")


def test_a_page_that_becomes_unreadable_is_reported_and_leaves(
    library: Library, project: Path
) -> None:
    library.refresh()
    (project / "repairs/gomp.md").write_bytes(b"\xff\xfe\x00")
    report = library.refresh()
    assert [bad.reason for bad in report.unreadable] == ["not UTF-8 text"]
    assert "repairs/gomp.md" not in sources(library, "undefined symbol GOMP_parallel")


def test_a_users_documents_are_found_and_followed(library: Library, tmp_path: Path) -> None:
    notes = documents(tmp_path / "notes", 3, "zebra")
    (notes / "broken.md").write_bytes(b"\x00\xff")
    report = library.index([notes])
    assert [Path(bad.path).name for bad in report.unreadable] == ["broken.md"]
    assert library.search("zebra1", 1)[0].source == f"{notes}/1.md"
    (notes / "1.md").unlink()
    report = library.index([notes])
    assert (report.read, report.dropped) == (0, 1)
    assert f"{notes}/1.md" not in sources(library, "zebra1 zebra")


def test_a_refresh_leaves_the_users_documents_alone(library: Library, tmp_path: Path) -> None:
    library.index([documents(tmp_path / "notes", 2, "zebra")])
    assert library.refresh().dropped == 0
    assert library.search("zebra", 1)[0].kind == "document"


def test_a_path_that_never_was_is_bad_input_and_changes_nothing(
    library: Library, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        library.index([tmp_path / "nowhere"])
    assert load_catalogue(library.folder).generation == 0


def test_a_folder_that_vanished_is_dropped(library: Library, tmp_path: Path) -> None:
    notes = documents(tmp_path / "notes", 2, "zebra")
    library.index([notes])
    notes.rename(tmp_path / "moved")
    assert library.index([notes]).dropped == 2


def test_documents_are_dropped_by_the_source_that_a_search_names(
    library: Library, tmp_path: Path
) -> None:
    notes, other = (
        documents(tmp_path / "note", 2, "zebra"),
        documents(tmp_path / "notes", 1, "ibex"),
    )
    library.index([notes, other])
    assert library.drop(str(notes)) == 2
    assert not any(str(notes) + "/" in source for source in sources(library, "zebra"))
    assert library.search("ibex0", 1)[0].source == f"{other}/0.md"
    for source in (str(notes), "docs/general.md"):
        with pytest.raises(BadInput, match="is no document"):
            library.drop(source)
    for source in ("", " "):
        with pytest.raises(BadInput, match="needs to know what"):
            library.drop(source)
    assert library.search("ibex0", 1)[0].source == f"{other}/0.md"


def test_a_name_that_is_no_text_is_left_out_and_said(library: Library, tmp_path: Path) -> None:
    notes = documents(tmp_path / "notes", 1, "zebra")
    (Path(os.fsdecode(os.fsencode(notes) + b"/caf\xe9.md"))).write_text("ibex")
    report = library.index([notes])
    assert [bad.reason for bad in report.unreadable] == ["its name is not UTF-8"]
    assert library.search("zebra0", 1)[0].source == f"{notes}/0.md"


@pytest.mark.parametrize(
    ("device", "tags"),
    [
        ("h200-sxm", ("h200-sxm", "cuda", "sm_90")),
        ("cuda:h200-sxm", ("h200-sxm", "cuda", "sm_90")),
        ("sm_90", ("sm_90", "cuda")),
        ("gfx942", ("gfx942", "hip")),
        ("hip", ("hip",)),
        ("amd-epyc-2c", ("amd-epyc-2c", "cpu")),
        ("h100", ("h100",)),
    ],
)
def test_a_device_is_looked_for_by_all_its_names(device: str, tags: tuple[str, ...]) -> None:
    assert tag_groups({"device": device}) == [tuple(f"device:{tag}" for tag in (*tags, "any"))]


def test_a_gpu_that_was_measured_here_is_no_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    page = load_devices()["a40"].model_copy(update={"name": "rtx-a6000", "title": "RTX A6000"})
    monkeypatch.setattr(passage, "known_devices", lambda: {page.name: page})
    (group,) = tag_groups({"device": "rtx-a6000"})
    assert group == ("device:rtx-a6000", "device:cuda", "device:sm_86", "device:any")


def test_a_query_that_is_no_text_is_no_error(library: Library) -> None:
    assert library.search("softmax \ud83d", 1)


def test_a_run_that_can_not_keep_its_lesson_goes_on_and_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = tried(confirmed=True, won=True).lesson
    assert lesson is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for for_run in (True, False):
        opened = Library.open(tmp_path / f"library-{for_run}", project=project, for_run=for_run)
        opened.refresh()
        with monkeypatch.context() as patched:
            patched.setattr("knowledge.shelf.save_catalogue", full)
            if for_run:
                opened.remember(lesson)
            else:
                with pytest.raises(BadInput, match=r"could not be used .*No space left"):
                    opened.remember(lesson)
        told = "\n".join(opened.memory.complaints())
        assert ("teaches nobody" in told) == for_run
        opened.close()


def test_naming_the_projects_own_pages_does_not_index_them_twice(
    library: Library, project: Path
) -> None:
    before = library.refresh().passages
    assert library.index([project / "docs"]).passages == before


def test_another_embedding_rebuilds_everything(
    library: Library, project: Path, tmp_path: Path
) -> None:
    library.index([documents(tmp_path / "notes", 2, "zebra")])
    other = Library.open(library.folder, project=project, embedding=HashedWords(256, 256))
    report = other.refresh()
    assert report.rebuilt == "the embedding has changed"
    assert report.read == 8
    assert other.search("zebra", 1)[0].kind == "document"


def test_a_shelf_from_before_the_records_changed_is_built_anew(library: Library) -> None:
    library.refresh()
    before = load_catalogue(library.folder)
    save_catalogue(library.folder, before.model_copy(update={"form": 1}))
    assert library.refresh().rebuilt == "passages are kept in another form"
    assert library.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")


def test_a_lost_catalogue_leaves_nothing_of_a_page_as_it_was(
    library: Library, project: Path
) -> None:
    library.refresh()
    (library.folder / "catalogue.json").unlink()
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    assert not any("Pairwise" in found.text for found in library.search("pairwise summation", 10))


def test_an_open_library_sees_what_another_process_wrote(
    library: Library, project: Path, tmp_path: Path
) -> None:
    notes = documents(tmp_path / "notes", 30, "zebra")
    assert "notes" not in sources(library, "zebra7")[0]
    process = in_another_process(library, project, f"library.index([Path({str(notes)!r})])")
    assert process.communicate(timeout=120)[1] == ""
    assert library.search("zebra7", 1)[0].source == f"{notes}/7.md"
    (notes / "own.md").write_text("giraffe")
    library.index([notes])
    assert library.search("zebra9", 1)[0].source == f"{notes}/9.md"


@pytest.mark.slow
def test_two_writers_at_once_lose_nothing(library: Library, project: Path, tmp_path: Path) -> None:
    folders = [documents(tmp_path / word, 12, word) for word in ("zebra", "giraffe")]
    code = "[library.index([page]) for page in sorted(Path({!r}).iterdir())]"
    writers = [in_another_process(library, project, code.format(str(each))) for each in folders]
    for _ in range(10):
        library.search("softmax")
    assert [writer.communicate(timeout=240)[1] for writer in writers] == ["", ""]
    for word in ("zebra", "giraffe"):
        for number in range(12):
            assert library.search(f"{word}{number}", 1)[0].source.endswith(f"{word}/{number}.md")


@pytest.mark.slow
def test_a_killed_index_run_leaves_a_usable_library(
    library: Library, project: Path, tmp_path: Path
) -> None:
    kept = documents(tmp_path / "kept", 3, "zebra")
    library.index([kept])
    many = documents(tmp_path / "many", 1500, "giraffe")
    process = in_another_process(library, project, f"library.index([Path({str(many)!r})])")
    deadline = time.monotonic() + 60
    while not load_catalogue(library.folder).writing and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert load_catalogue(library.folder).writing
    assert library.search("zebra2", 1)[0].source == f"{kept}/2.md"
    assert not any("many" in source for source in sources(library, "giraffe7 giraffe"))
    assert not load_catalogue(library.folder).writing
    assert len(list(library.folder.glob("shelf-*"))) == 1


def test_a_broken_shelf_is_built_anew(library: Library) -> None:
    library.refresh()
    library.close()
    for file in library.folder.glob("shelf-*/**/*"):
        if file.is_file():
            file.write_bytes(b"not a database at all" * 100)
    assert library.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")


def test_a_lost_shelf_is_built_anew(library: Library) -> None:
    library.refresh()
    library.close()
    (library.folder / "catalogue.json").unlink()
    assert library.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")


def test_nothing_is_downloaded_and_no_model_is_loaded(library: Library, project: Path) -> None:
    code = (
        "import socket; socket.socket.connect = None; socket.create_connection = None; "
        "socket.getaddrinfo = None; library.search('softmax'); "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('onnxruntime', 'torch', 'sentence_transformers', 'langchain')])"
    )
    told, complaint = in_another_process(library, project, code).communicate(timeout=120)
    assert (told, complaint) == ("[]\n", "")


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="KERNELWRIGHT_LIBRARY"):
        Library.open(tmp_path / "file" / "library")


def test_the_environment_says_where_the_library_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KERNELWRIGHT_LIBRARY", raising=False)
    assert default_place() == str(tmp_path / "kernelwright" / "library")
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "mine"))
    assert default_place() == str(tmp_path / "mine")
