"""The index by words: finds exact names, is narrowed like the vectors, and never stays broken."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from knowledge.catalogue import load_catalogue
from knowledge.fusion import Fusion
from knowledge.lexical import WordIndex, index_folder
from knowledge.store import Library
from tests.knowledge.test_store import documents, in_another_process, sources

METRIC = "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"
WORDS_ALONE = Fusion(dense=0)


@pytest.fixture
def by_words(library: Library, project: Path) -> Library:
    """The same library, asked by words alone, so that no vector can stand in for them."""
    return Library.open(library.folder, project=project, fusion=WORDS_ALONE)


def kept(library: Library) -> list[Path]:
    return sorted(library.folder.glob("words-*"))


@pytest.mark.parametrize(
    "query", [METRIC, f"what is {METRIC}?", "stalled_long_scoreboard", "long scoreboard"]
)
def test_an_identifier_is_found_whole_and_by_its_parts(
    library: Library, tmp_path: Path, query: str
) -> None:
    notes = documents(tmp_path / "notes", 20, "warp stall issue ratio active average")
    (notes / "exact.md").write_text(f"# A figure\nThe report shows {METRIC} at 12.\n")
    library.index([notes])
    assert library.search(query, 1)[0].source == f"{notes}/exact.md"


def test_all_filters_hold_for_words_too(by_words: Library) -> None:
    assert {p.kind for p in by_words.search("softmax", kind="repair")} <= {"repair"}
    assert "docs/gpu/banks.md" not in sources(by_words, "banks warp", device="cpu")
    assert "docs/gpu/banks.md" in sources(by_words, "banks warp", device="h200-sxm")
    assert not any("softmax.md" in s for s in sources(by_words, "running maximum", op="conv2d"))
    assert "docs/gpu/banks.md" not in sources(by_words, "banks warp", bottleneck="memory")


@pytest.mark.parametrize("fusion", [Fusion(), WORDS_ALONE, Fusion(passages=0, pages=0)])
def test_a_language_keeps_its_own_pages_and_general_ones(
    library: Library, project: Path, fusion: Fusion
) -> None:
    head = "---\ntitle: Stride {0}\nlanguages: [{0}]\nsources: [x]\n---\nA stride in {0}.\n"
    for language in ("cpp", "triton"):
        (project / f"docs/{language}.md").write_text(head.format(language))
    asked = Library.open(library.folder, project=project, fusion=fusion)
    asked.refresh()
    found = sources(asked, "stride summation", language="C++")
    assert "docs/cpp.md" in found
    assert "docs/general.md" in found
    assert "docs/triton.md" not in found
    assert asked.search("stride", language="cpp")[0].languages in (("cpp",), ())


def test_narrowed_to_nothing_is_nothing(library: Library) -> None:
    assert library.search("softmax", kind="no such kind") == []


def test_an_index_is_kept_and_read_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources(library, "running maximum")
    assert len(kept(library)) == 1
    library.close()
    monkeypatch.setattr(WordIndex, "build", None)
    assert sources(library, "running maximum") == before


def cut_in_half(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def overwrite(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"neither numbers nor names" * 40)


def empty(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def lose_one_file(folder: Path) -> None:
    (folder / "pages" / "vocab.index.json").unlink()


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def swap_with_pages(folder: Path) -> None:
    shutil.rmtree(folder / "passages")
    shutil.copytree(folder / "pages", folder / "passages")


DAMAGES = [cut_in_half, overwrite, empty, lose_one_file, replace_by_a_file, swap_with_pages]
DAMAGES += [shutil.rmtree]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_index_is_made_anew_without_a_word(
    by_words: Library, damage: Callable[[Path], None]
) -> None:
    before = sources(by_words, "running maximum")
    state = load_catalogue(by_words.folder)
    by_words.close()
    damage(kept(by_words)[0])
    assert sources(by_words, "running maximum") == before
    assert load_catalogue(by_words.folder) == state
    assert WordIndex.load(index_folder(by_words.folder, state.words)) is not None


def test_an_index_of_an_earlier_state_is_never_read_and_goes(
    by_words: Library, project: Path
) -> None:
    assert sources(by_words, "quinces") == []
    (earlier,) = kept(by_words)
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    by_words.refresh()
    assert sources(by_words, "quinces") == ["docs/general.md"]
    assert earlier not in kept(by_words)
    assert len(kept(by_words)) == 1


def test_what_a_killed_reader_left_goes_with_the_next_write(
    library: Library, project: Path
) -> None:
    library.refresh()
    left = library.folder / "words-abc-def.4711"
    left.mkdir()
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    library.refresh()
    assert not left.exists()


def test_a_lost_catalogue_does_not_bring_an_old_index_back(
    by_words: Library, project: Path
) -> None:
    by_words.refresh()
    by_words.close()
    (by_words.folder / "catalogue.json").unlink()
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    assert sources(by_words, "quinces") == ["docs/general.md"]


def test_words_that_another_process_wrote_are_found(
    by_words: Library, project: Path, tmp_path: Path
) -> None:
    notes = documents(tmp_path / "notes", 5, "zebra")
    assert sources(by_words, "zebra3") == []
    process = in_another_process(by_words, project, f"library.index([Path({str(notes)!r})])")
    assert process.communicate(timeout=120)[1] == ""
    assert sources(by_words, "zebra3")[0] == f"{notes}/3.md"


def test_readers_that_find_no_index_at_once_all_get_answers(
    library: Library, project: Path
) -> None:
    library.refresh()
    library.close()
    shutil.rmtree(kept(library)[0])
    code = "print(library.search('running maximum', 1)[0].source)"
    readers: list[subprocess.Popen[str]] = [
        in_another_process(library, project, code) for _ in range(3)
    ]
    told = [reader.communicate(timeout=120) for reader in readers]
    assert told == [("docs/cpu/softmax.md#running maximum\n", "")] * 3
    assert [WordIndex.load(path) is not None for path in kept(library)] == [True]


def test_pages_without_a_single_word_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/dots.md").write_text("---\ntitle: '...'\n---\n... !\n")
    library = Library.open(tmp_path / "library", project=tmp_path)
    assert all(0.0 < passage.score <= 1.0 for passage in library.search("words ..."))
    library.close()
