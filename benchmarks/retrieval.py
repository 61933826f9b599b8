"""`python -m benchmarks.retrieval`: how well the library finds pages, and how fast.

The queries lie in `retrieval_queries.yaml`. Recall@5 asks whether one of a query's pages is among
the five passages that a search shows, MRR how far up (over ten). Each embedding is measured alone
and fused with BM25; `--chunks` adds foreign passages until the library has that many.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer
import yaml
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize
from tokenizers import Tokenizer

from knowledge.embed import Alike, Embedding, HashedWords, StaticWords
from knowledge.fusion import Fusion
from knowledge.pages import Page, parse, project_files
from knowledge.passage import records_of, subject_of
from knowledge.store import PROJECT, Library
from knowledge.words import terms

QUERIES = Path(__file__).with_name("retrieval_queries.yaml")
SHOWN, DEEPEST = 5, 10
SECTIONS, WORDS = 20, 90
COLD_OPENS = 3
ALONE = {
    "BM25 alone": Fusion(dense=0, pages=0),
    "BM25, passages and pages": Fusion(dense=0),
    "dense alone": Fusion(passages=0, pages=0),
}
GRID = ((5, 10, 20, 40), (0.5, 0.75, 1.0), (0.5, 1.0))
COLD_OPEN = """
import sys, time
began = time.perf_counter()
from pathlib import Path
from knowledge.store import Library
imported = time.perf_counter()
assert Library.open(Path(sys.argv[1])).search("rows of the output are written twice")
print(imported - began, time.perf_counter() - imported)
"""


@dataclass(frozen=True)
class Query:
    """A symptom in words, the pages that answer it, and whether it may be tuned on."""

    text: str
    pages: frozenset[str]
    held_out: bool


@dataclass(frozen=True)
class Quality:
    """Over some queries: the share whose page is shown, and the mean of 1/rank."""

    recall: float
    reciprocal_rank: float


class FittedTopics(Alike):
    """TF-IDF of the library's own terms, reduced by SVD: an embedding fitted on the pages."""

    def __init__(self, texts: Sequence[str], dimensions: int = 200) -> None:
        self.name = f"tfidf-svd/{dimensions}"
        self._counts = TfidfVectorizer(analyzer=terms, sublinear_tf=True)
        self._topics = TruncatedSVD(dimensions, random_state=0)
        self._topics.fit(self._counts.fit_transform(texts))

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text, or zeros where it has no term that the pages have."""
        reduced = self._topics.transform(self._counts.transform(texts))
        vectors: list[list[float]] = normalize(reduced).tolist()
        return vectors


class OnnxSentences(Alike):
    """A sentence model of the BERT family that lies on this machine: the mean of its last layer."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        self.name = f"onnx/{model.stem}"
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.enable_truncation(256)
        self._tokenizer.no_padding()
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._inputs = {each.name for each in self._session.get_inputs()}

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> list[float]:
        encoded = self._tokenizer.encode(text)
        given = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        fed = {name: np.array([given[name]], dtype=np.int64) for name in self._inputs}
        output = np.asarray(self._session.run(None, fed)[0])
        # A model that pools by itself gives one row a text, not one a token.
        pooled = output.mean(axis=1) if output.ndim > 2 else output
        vector: list[float] = normalize(pooled)[0].tolist()
        return vector


def load_queries() -> list[Query]:
    """All labelled queries in the file's order."""
    return [
        Query(each["query"], frozenset(each["pages"]), each.get("holdout", False))
        for each in yaml.safe_load(QUERIES.read_text(encoding="utf-8"))
    ]


def page_name(source: str) -> str:
    """A passage's page as the queries name it: without section and suffix, a pattern by folder."""
    subject = subject_of(source.split("#")[0])
    return subject if subject.startswith("patterns/") else subject.rpartition(".")[0]


def first_right(library: Library, query: Query) -> int | None:
    """The rank, from 1, of the first passage of a right page; None where there is none in ten."""
    shown = [page_name(passage.source) for passage in library.search(query.text, DEEPEST)]
    return next((rank for rank, page in enumerate(shown, 1) if page in query.pages), None)


def quality(library: Library, queries: Sequence[Query]) -> Quality:
    """Recall@5 and MRR of a library over some queries."""
    ranks = [first_right(library, query) for query in queries]
    return Quality(
        recall=sum(rank is not None and rank <= SHOWN for rank in ranks) / len(ranks),
        reciprocal_rank=sum(1 / rank for rank in ranks if rank is not None) / len(ranks),
    )


def slowest_ms(library: Library, queries: Sequence[Query]) -> float:
    """The 95th percentile of a search's time, once the shelf is open."""
    library.search(queries[0].text)
    times = []
    for query in queries:
        began = time.perf_counter()
        library.search(query.text)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.quantiles(times, n=20)[-1]


def cold_open_s(folder: Path) -> tuple[float, float]:
    """Seconds for the imports, and from there to the first answer, in a new process; medians."""
    told = [
        subprocess.run(
            [sys.executable, "-c", COLD_OPEN, str(folder)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(COLD_OPENS)
    ]
    imports, opening = zip(*([float(part) for part in each] for each in told), strict=True)
    return statistics.median(imports), statistics.median(opening)


def own_pages() -> list[Page]:
    """The project's pages."""
    read = (parse(label, path, path.read_bytes()) for label, path in project_files(PROJECT))
    return [page for page in read if isinstance(page, Page)]


def foreign_pages(count: int, texts: Sequence[str]) -> Iterator[str]:
    """So many passages on nothing, in pages of 20: words of the library's, half of them made up."""
    chance = random.Random(1)
    # What opens a code fence or a heading would swallow the sections after it.
    known = [word for text in texts for word in text.split() if not word.startswith(("`", "#"))]
    syllables = ["ka", "lo", "mi", "ter", "os", "und", "pre", "vel", "zan", "qui", "ro", "bel"]
    made_up = ["".join(chance.choices(syllables, k=chance.randint(2, 4))) for _ in range(5000)]

    def line(words: int) -> str:
        return " ".join(chance.choice(chance.choice((known, made_up))) for _ in range(words))

    for start in range(0, count, SECTIONS):
        sections = (f"## {line(3)}\n\n{line(WORDS)}\n" for _ in range(min(SECTIONS, count - start)))
        yield f"# {line(4)}\n\n" + "\n".join(sections)


def tell(library: Library, name: str, embedding: str, queries: Sequence[Query]) -> None:
    """One line of the table."""
    tuned_on = quality(library, [query for query in queries if not query.held_out])
    held_out = quality(library, [query for query in queries if query.held_out])
    figures = (tuned_on.recall, tuned_on.reciprocal_rank, held_out.recall, held_out.reciprocal_rank)
    shown = " | ".join(f"{figure:.2f}" for figure in figures)
    _say(f"| {name} | {embedding} | {shown} | {slowest_ms(library, queries):.1f} |")


def head(passages: int) -> None:
    """The table's head."""
    _say(f"\n{passages} passages\n")
    _say("| ranking | embedding | recall@5, tuned on | MRR | recall@5, held out | MRR | p95, ms |")
    _say("| --- | --- | --- | --- | --- | --- | --- |")


def measure(folder: Path, embeddings: Sequence[Embedding], queries: Sequence[Query]) -> None:
    """The table of one size of library; the first embedding is the one in use."""
    for number, embedding in enumerate(embeddings):
        place = folder if number == 0 else folder.with_name(f"{folder.name}-{number}")
        library = Library.open(place, embedding=embedding)
        report = library.refresh()
        if number == 0:
            head(report.passages)
        tell(library, "hybrid", embedding.name, queries)
        for name, fusion in ALONE.items():
            if name.startswith("dense") or number == 0:
                alone = Library.open(place, embedding=embedding, fusion=fusion)
                tell(alone, name, embedding.name if fusion.dense else "-", queries)
        library.close()
    imports, opening = cold_open_s(folder)
    _say(f"\ncold open {opening:.2f} s to the first answer, after {imports:.2f} s of imports")


def tune(folder: Path, queries: Sequence[Query]) -> None:
    """How k and the weights do on what may be tuned on, best first."""
    open_to_us = [query for query in queries if not query.held_out]
    told = []
    for k, dense, pages in product(*GRID):
        fusion = Fusion(k=k, dense=dense, pages=pages)
        got = quality(Library.open(folder, fusion=fusion), open_to_us)
        told.append((got.recall + got.reciprocal_rank, got, fusion))
    for _, got, fusion in sorted(told, key=lambda each: -each[0]):
        _say(f"{got.recall:.3f} {got.reciprocal_rank:.3f} {fusion}")


def main(
    chunks: Annotated[int, typer.Option(help="Also with foreign passages, so many in all.")] = 0,
    only_tune: Annotated[bool, typer.Option("--tune", help="Try weights instead.")] = False,
    onnx: Annotated[Path | None, typer.Option(help="A sentence model to measure too.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Its tokenizer.json.")] = None,
    others: Annotated[bool, typer.Option(help="Measure the other embeddings too.")] = True,
) -> None:
    """Measure retrieval."""
    queries = load_queries()
    texts = [record.indexed for page in own_pages() for record in records_of(page)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "library"
        if only_tune:
            tune(folder, queries)
            return
        more: list[Embedding] = [HashedWords(), FittedTopics(texts)] if others else []
        if onnx and tokenizer:
            more.append(OnnxSentences(onnx, tokenizer))
        measure(folder, [StaticWords(), *more], queries)
        if chunks:
            foreign = Path(scratch) / "foreign"
            foreign.mkdir()
            for number, page in enumerate(foreign_pages(chunks - len(texts), texts)):
                (foreign / f"{number}.md").write_text(page, encoding="utf-8")
            Library.open(folder).index([foreign])
            measure(folder, [StaticWords()], queries)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
