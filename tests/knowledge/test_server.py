"""A library on a real Chroma server: shared, consistent, and clear about what it can't do."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from chromadb.api.client import Client
from typer.testing import CliRunner

from knowledge import search, server
from knowledge.embed import HashedWords, StaticWords
from knowledge.errors import BadInput
from knowledge.experience import Lesson
from knowledge.experience.memory import Memory
from knowledge.fusion import Fusion
from knowledge.reach import Unreachable, address_of, close_client, open_client
from knowledge.server import ServerShelf, Superseded
from knowledge.store import Library, folder_of
from knowledge.upkeep import OtherEmbedding
from tests.knowledge.conftest import PAGES

STARTED_S = 60.0
OPEN = (
    "import sys; from pathlib import Path; from knowledge.store import Library; "
    "library = Library.open(sys.argv[1], project=Path(sys.argv[2])); "
)


@pytest.fixture(scope="session")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of our own."""
    command = Path(sys.executable).with_name("chroma")
    if not command.exists():
        pytest.skip(f"the chromadb package brought no server command ({command})")
    port, home = free_port(), tmp_path_factory.mktemp("chroma")
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [command, "run", "--host", "127.0.0.1", "--port", str(port), "--path", home / "data"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTED_S
        while not answers(f"http://127.0.0.1:{port}/api/v2/heartbeat"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the server did not start: {(home / 'log').read_text()[-300:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def url(chroma: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of the test's own, and this machine's folder in a temporary one."""
    home = request.getfixturevalue("tmp_path")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return f"{chroma}/{home.name.replace('_', '-')}"


Member = Callable[[str], Library]


@pytest.fixture
def member(url: str, project: Path) -> Iterator[Member]:
    """The test's library as it looks from a machine of that name, with a cache of its own."""
    with contextlib.ExitStack() as opened:
        yield lambda host: opened.enter_context(contextlib.closing(at(url, project, host)))


def at(url: str, project: Path, host: str) -> Library:
    cache = folder_of(project.parent / f"cache-{host}")
    shelf = ServerShelf(url, cache)
    shelf.host = host
    return Library(shelf, Memory(cache), project, StaticWords(), Fusion())


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """Chroma's own client for the test's database."""
    opened = open_client(url, address_of(url))
    yield opened
    close_client(opened)


def in_another_process(url: str, project: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN + code, url, str(project)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def sources(library: Library, query: str) -> list[str]:
    return [passage.source for passage in library.search(query, 10)]


def documents(folder: Path, count: int, word: str) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.md").write_text(f"# Page {number}\n{word} number {word}{number}\n")
    return folder


def lesson(run_id: str, speedup: float = 2.0) -> Lesson:
    return Lesson(
        fingerprint="f", signature="softmax mul", device="cpu-2c", title="fused", steps=(),
        verdict="faster", speedup=speedup, confirmed=True, run_id=run_id,
        when=f"2026-01-0{run_id[-1]}T00:00:00",
    )  # fmt: skip


def test_a_team_shares_pages_documents_and_lessons(member: Member, tmp_path: Path) -> None:
    notes = documents(tmp_path / "notes", 2, "zebra")
    ada, bob = member("ada"), member("bob")
    assert ada.index([notes]).rebuilt == "first use"
    assert bob.refresh().unchanged == len(PAGES), "bob finds nothing left to do"
    assert bob.search("zebra1", 1)[0].source == f"ada:{notes}/1.md"
    ada.remember(lesson("run-1", 1.5))
    bob.remember(lesson("run-2", 2.5))
    assert [one.speedup for one in ada.lessons_like("softmax mul", "cpu-2c")] == [2.5]
    assert bob.forget(lambda one: one.run_id == "run-2") == 1
    assert [one.speedup for one in ada.lessons_like("softmax mul", "cpu-2c")] == [1.5]


def test_one_members_documents_outlive_anothers_and_a_rebuilding(
    member: Member, tmp_path: Path
) -> None:
    notes = documents(tmp_path / "notes", 2, "zebra")
    ada, bob = member("ada"), member("bob")
    ada.index([notes])
    (notes / "1.md").unlink()
    (notes / "2.md").write_text("giraffe")
    bob.index([notes])
    assert f"ada:{notes}/1.md" in sources(bob, "zebra1"), "ada's own file is hers to drop"
    assert bob.index([], anew=True).rebuilt == "asked to"
    assert f"ada:{notes}/1.md" in sources(ada, "zebra1")
    assert f"bob:{notes}/2.md" in sources(ada, "giraffe")
    assert ada.index([notes]).dropped == 1
    assert f"ada:{notes}/1.md" not in sources(bob, "zebra1")
    assert bob.drop("ada") == 2, "whose machine is gone can't drop them"
    assert not any(source.startswith("ada:") for source in sources(bob, "zebra giraffe"))
    with pytest.raises(BadInput, match="is no document"):
        bob.drop("ada")


def test_a_changed_page_reaches_the_others_and_nothing_is_left_behind(
    member: Member, client: Client, project: Path
) -> None:
    ada, bob = member("ada"), member("bob")
    assert "docs/general.md" in sources(bob, "pairwise summation")
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    assert ada.refresh().read == 1
    assert bob.search("quinces", 1)[0].title == "Marmalade"
    assert not any("Pairwise" in found.text for found in bob.search("pairwise summation", 10))
    kinds = [one.name.rpartition("-")[0] for one in client.list_collections()]
    assert sorted(kinds) == [
        "kernelwright-edition", "kernelwright-lesson", "kernelwright-lessons",
        "kernelwright-passages",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_writers_at_once_lose_nothing(
    member: Member, url: str, project: Path, tmp_path: Path
) -> None:
    folders = [documents(tmp_path / word, 2, word) for word in ("zebra", "giraffe")]
    code = "[library.index([page]) for page in sorted(Path({!r}).iterdir())]"
    other = in_another_process(url, project, code.format(str(folders[0])))
    ours, reader = member("ada"), member("bob")
    writer = threading.Thread(
        target=lambda: [ours.index([page]) for page in sorted(folders[1].iterdir())]
    )
    writer.start()
    while writer.is_alive():
        assert sources(reader, "running maximum of a softmax")[0].startswith("docs/cpu/softmax")
    assert other.communicate(timeout=120)[1] == ""
    for folder in folders:
        for page in folder.iterdir():
            (found,) = reader.search(f"{folder.name}{page.stem}", 1)
            assert found.source.endswith(f":{page}")


@pytest.mark.slow
def test_a_killed_writer_leaves_a_usable_library(
    member: Member, url: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENCE_S", 1.0)
    kept = documents(tmp_path / "kept", 1, "zebra")
    ada, bob = member("ada"), member("bob")
    ada.index([kept])
    code = (
        "shelf = library._shelf; context = shelf.writing(); catalogue = context.__enter__(); "
        "shelf.begin(catalogue); collection = shelf.collection(catalogue, 'passages'); "
        "collection.delete(where={'page': 'docs/general.md'}); print('begun', flush=True); "
        "import time; time.sleep(600)"
    )
    process = in_another_process(url, project, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert "docs/general.md" in sources(bob, "pairwise summation")
    assert f"ada:{kept}/0.md" in sources(bob, "zebra0")
    assert not bob._shelf.read(lambda catalogue: catalogue).writing


def test_a_writer_that_slept_too_long_cannot_undo_its_successors_work(
    member: Member, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SILENCE_S", 0.5)
    monkeypatch.setattr(server, "BEAT_S", 3600.0)
    ada, bob = member("ada"), member("bob")
    ada.refresh()
    with ada._shelf.writing() as catalogue:
        ada._shelf.begin(catalogue)
        (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
        assert bob.refresh().rebuilt == "an earlier run was interrupted"
        with pytest.raises(Superseded, match="run it again"):
            ada._shelf.finish(catalogue)
    assert ada.search("quinces", 1)[0].title == "Marmalade"


def test_another_embedding_is_one_clear_line_until_it_is_meant(
    member: Member, url: str, project: Path, tmp_path: Path
) -> None:
    notes = documents(tmp_path / "notes", 1, "zebra")
    ada = member("ada")
    ada.index([notes])
    other = Library.open(url, project=project, embedding=HashedWords(64, 64))
    with pytest.raises(OtherEmbedding, match="KERNELWRIGHT_EMBEDDING"):
        other.search("softmax")
    assert ada.refresh().rebuilt == ""
    other.index([], anew=True)
    assert other.search("zebra0", 1)[0].source == f"ada:{notes}/0.md"
    other.close()
    with pytest.raises(OtherEmbedding):
        ada.search("softmax")


def test_a_lost_collection_is_built_anew(member: Member, client: Client) -> None:
    ada, bob = member("ada"), member("bob")
    ada.refresh()
    catalogue = ada._shelf.read(lambda catalogue: catalogue)
    client.delete_collection(f"kernelwright-passages-{catalogue.shelf}")
    assert sources(bob, "running maximum")[0].startswith("docs/cpu/softmax.md")


def test_a_server_that_is_not_there_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(
        search.app, ["softmax", "--library", f"http://127.0.0.1:{free_port()}"]
    )
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "does not answer" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://host/a/b/c",
        "http://host:8000/?x=1",
        "http://host:x",
        "http://a:secret@host",
    ],
)
def test_what_is_no_address_is_said(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(search.app, ["softmax", "--library", url])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "http://host:port" in result.stderr
    assert "secret" not in result.stderr


class Gate(BaseHTTPRequestHandler):
    """What a team puts before its server: nobody passes without the token."""

    behind = ""

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        if self.headers.get("Authorization") != "Bearer sesame":
            return self.reply(401, json.dumps({"message": "who are you?"}).encode())
        kept = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            self.behind + self.path, data=body, headers=kept, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return self.reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return self.reply(error.code, error.read())

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def gate(url: str) -> Iterator[str]:
    """The test's database behind a gate; closed, with its server gone, at the end."""
    where = urllib.parse.urlsplit(url)
    handler = type("Behind", (Gate,), {"behind": f"http://{where.netloc}"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}{where.path}"
        proxy.shutdown()


def test_a_token_opens_the_gate_and_its_lack_is_told(
    gate: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="KERNELWRIGHT_LIBRARY_TOKEN"):
        at(gate, project, "ada").refresh()
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY_TOKEN", "sesame")
    ada = at(gate, project, "ada")
    assert sources(ada, "running maximum")[0].startswith("docs/cpu/softmax.md")
    monkeypatch.delenv("KERNELWRIGHT_LIBRARY_TOKEN")
    ada.close()
    with pytest.raises(Unreachable, match="does not let us in"):
        ada.search("running maximum")
    ada.close()


def test_a_run_that_loses_its_server_goes_on_with_this_machines_library(
    gate: str, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY_TOKEN", "sesame")
    library = Library.open(gate, project=project, for_run=True)
    library.refresh()
    assert library.memory.complaints() == ()
    # The server's address stays, and from now on nothing but refusals comes from it.
    monkeypatch.setattr(Gate, "behind", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("KERNELWRIGHT_LIBRARY_TOKEN")
    library.close()
    assert sources(library, "running maximum")[0].startswith("docs/cpu/softmax.md")
    library.remember(lesson("run-1"))
    (told,) = library.memory.complaints()
    assert gate in told
    assert str(tmp_path / "cache" / "kernelwright" / "library") in told
    assert [one.run_id for one in library.lessons_like("softmax mul", "cpu-2c")] == ["run-1"]
    library.close()
