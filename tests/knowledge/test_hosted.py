"""LangChain's embeddings by name: found, asked patiently, and clear about what they lack."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from typer.testing import CliRunner

from knowledge.embed import EmbeddingFailed, HashedWords, StaticWords, chosen_embedding
from knowledge.hosted import BATCH, Hosted, hosted
from knowledge.index import app
from knowledge.store import Library
from tests.knowledge.conftest import PAGES


def fake_64() -> Embeddings:
    return DeterministicFakeEmbedding(size=64)


def fake_32() -> Embeddings:
    return DeterministicFakeEmbedding(size=32)


def neither() -> str:
    return "no embedding"


class Refused(Exception):
    """As providers have them: a status, and nothing else that is common to all."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class Moody(Embeddings):
    """Refuses some times before it answers."""

    def __init__(self, moods: list[Exception]) -> None:
        self.moods = moods
        self.asked: list[int] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(len(texts))
        if self.moods:
            raise self.moods.pop(0)
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [-1.0, float(len(text))]


def named(name: str) -> str:
    return f"{__name__}:{name}"


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNELWRIGHT_EMBEDDING", raising=False)
    assert isinstance(chosen_embedding(), StaticWords)
    monkeypatch.setenv("KERNELWRIGHT_EMBEDDING", "hashed")
    assert isinstance(chosen_embedding(), HashedWords)
    monkeypatch.setenv("KERNELWRIGHT_EMBEDDING", named("fake_64"))
    assert chosen_embedding().name == f"langchain/{named('fake_64')}"


def test_the_index_knows_its_model_and_is_built_anew_for_another(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(name: str) -> Library:
        monkeypatch.setenv("KERNELWRIGHT_EMBEDDING", named(name))
        return Library.open(tmp_path / "library", project=project)

    first = opened("fake_64")
    assert (first.refresh().rebuilt, first.refresh().rebuilt) == ("first use", "")
    assert first.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")
    assert opened("fake_64").refresh().read == 0
    report = opened("fake_32").refresh()
    assert (report.rebuilt, report.read) == ("the embedding has changed", len(PAGES))
    first.close()


def test_texts_go_in_batches_and_a_busy_service_is_asked_again() -> None:
    moody = Moody([Refused(429), ConnectionResetError(), Refused(503)])
    texts = [f"{'x' * number}" for number in range(1, BATCH + 3)]
    vectors = Hosted("moody", moody, first_wait_s=0.001).embed(texts)
    assert [vector[0] for vector in vectors] == [float(len(text)) for text in texts]
    assert moody.asked == [BATCH] * 4 + [2]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_will_not_pass_is_not_asked_again(status: int) -> None:
    moody = Moody([Refused(status)] * 9)
    with pytest.raises(EmbeddingFailed, match=f"status {status}"):
        Hosted("moody", moody, first_wait_s=0.001).embed(["text"])
    assert moody.asked == [1]


def test_a_service_that_stays_away_is_given_up() -> None:
    with pytest.raises(EmbeddingFailed, match="KERNELWRIGHT_EMBEDDING=moody"):
        Hosted("moody", Moody([Refused(503)] * 9), first_wait_s=0.001).embed(["text"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mistralai:mistral-embed", "pip install langchain-mistralai"),
        ("nobody:model", "not supported"),
        ("model", "provider"),
        ("tests.knowledge.nowhere:model", "No module named"),
        (named("no_such_name"), "no_such_name"),
        (named("neither"), "no LangChain Embeddings"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_2(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "mistral" in name and find_spec("langchain_mistralai"):
        pytest.skip("the package that is to be missing is installed")
    monkeypatch.setenv("KERNELWRIGHT_EMBEDDING", name)
    result = CliRunner().invoke(app, ["--library", str(tmp_path / "library")])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert told in result.stderr
    assert result.stderr.startswith(f"KERNELWRIGHT_EMBEDDING={name}: ")


def test_a_service_that_fails_leaves_the_index_as_it_was(tmp_path: Path, project: Path) -> None:
    moody = Moody([])
    library = Library.open(tmp_path / "library", project=project, embedding=Hosted("m", moody))
    library.refresh()
    moody.moods = [Refused(401)]
    (project / "docs/general.md").write_text("# Marmalade\nQuinces and oranges.\n")
    with pytest.raises(EmbeddingFailed):
        library.refresh()
    assert library.search("pairwise summation")
    assert (library.refresh().read, library.refresh().rebuilt) == (1, "")
    library.close()


class Speechless(Moody):
    """Makes vectors of pages, and none of questions."""

    def embed_query(self, text: str) -> list[float]:
        raise Refused(401)


def test_a_run_without_vectors_finds_pages_by_their_words(tmp_path: Path, project: Path) -> None:
    embedding = Hosted("speechless", Speechless([]))
    library = Library.open(tmp_path / "library", project=project, embedding=embedding, for_run=True)
    assert library.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")
    assert library.lessons_like("softmax", "cpu") == []
    (told,) = library.memory.complaints()
    assert "by their words alone" in told
    with pytest.raises(EmbeddingFailed):
        Library.open(library.folder, project=project, embedding=embedding).search("running")
    library.close()


class OpenAI(BaseHTTPRequestHandler):
    """OpenAI's embeddings endpoint: vectors of letter counts, for texts only, with a key."""

    sizes: list[int] = []  # noqa: RUF012 - what this server was asked, for the test to read

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers["Authorization"] == "Bearer sesame"
        texts = asked["input"]
        whole = self.path == "/v1/embeddings" and all(isinstance(text, str) for text in texts)
        if not (known and whole):
            return self.reply(401 if not known else 400, {"error": {"message": "no", "code": "x"}})
        self.sizes.append(len(texts))
        data = [
            {"object": "embedding", "index": at, "embedding": [text.count(c) + 0.1 for c in "etao"]}
            for at, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return self.reply(
            200, {"object": "list", "data": data, "model": asked["model"], "usage": usage}
        )

    def reply(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def openai_address() -> Iterator[str]:
    if find_spec("langchain_openai") is None:
        pytest.skip("langchain-openai is not installed")
    OpenAI.sizes.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), OpenAI) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_a_server_that_speaks_openais_language(
    openai_address: str, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_address)
    monkeypatch.setenv("OPENAI_API_BASE", openai_address)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("KERNELWRIGHT_EMBEDDING", "openai:text-embedding-3-small")
    with pytest.raises(EmbeddingFailed, match="OPENAI_API_KEY"):
        chosen_embedding()
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(EmbeddingFailed, match="401"):
        hosted("openai:text-embedding-3-small").embed_query("text")
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    library = Library.open(tmp_path / "library", project=project)
    assert library.refresh().passages == sum(OpenAI.sizes)
    assert library.search("running maximum", 1)[0].source.startswith("docs/cpu/softmax.md")
    library.close()
