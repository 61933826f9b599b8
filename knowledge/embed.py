"""Text to vectors on this machine, without a download: the dense half of a search.

`StaticWords` was chosen by `benchmarks/retrieval.py`; the figures of the others stand in
docs/knowledge.md.
"""

import os
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize
from tokenizers import Tokenizer

from knowledge.errors import BadInput

CHOICE = "KERNELWRIGHT_EMBEDDING"
VERSION = 1
# H200, GOMP_parallel, avx512: whoever types one means it, so it counts three times.
_IDENTIFIER = re.compile(r"\b(?=\w*[A-Za-z_])(?=\w*[\d_])\w+\b")


class Embedding(Protocol):
    """Turns texts into vectors of one fixed length.

    Raises:
        EmbeddingFailed: the service behind it gives none.
    """

    @property
    def name(self) -> str:
        """Identity: two embeddings of one name give the same vector for the same text."""

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector a text, or zeros for a text without a single word."""

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, which some models make otherwise than an answer's."""


class EmbeddingFailed(BadInput):
    """No vectors were to be had."""


class Alike:
    """An embedding that makes no difference between questions and answers."""

    def embed_query(self: Embedding, text: str) -> list[float]:
        """As any text's."""
        return self.embed([text])[0]


class StaticWords(Alike):
    """The mean of fixed vectors of word pieces, as the package wordllama brings them along.

    16 MB and no network to run through: it knows which words are used alike, not their order.
    """

    name = "wordllama/l2_supercat_256"

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text, or zeros for a text without a single word."""
        tokenizer, table = _word_pieces()
        sums = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
        for at, text in enumerate(texts):
            # One by one: a batch starts threads, of which a process that forks later is warned.
            pieces = tokenizer.encode(text, add_special_tokens=False).ids
            sums[at] = table[pieces].sum(axis=0, dtype=np.float32)
        vectors: list[list[float]] = normalize(sums).tolist()
        return vectors


@cache
def _word_pieces() -> tuple[Tokenizer, np.ndarray]:
    """The tokenizer, and a vector for each of its pieces.

    Only the package's files are used: its own loader (0.4.0) misses the tokenizer that lies beside
    it and downloads another.
    """
    spec = find_spec("wordllama")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    tokenizer = Tokenizer.from_file(str(package / "tokenizers/l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    table: np.ndarray = load_file(package / "weights/l2_supercat_256.safetensors")[
        "embedding.weight"
    ]
    return tokenizer, table


class HashedWords(Alike):
    """Signed feature hashing with sublinear term frequency; needs no files at all.

    Words and pairs of words take one part of the vector and letter runs inside words the other, so
    that `vectorisation` still meets `vectorised` without long words drowning the rest.
    """

    def __init__(self, word_buckets: int = 512, letter_buckets: int = 512) -> None:
        self.name = f"hashed-words/{VERSION} words={word_buckets} letters={letter_buckets}"
        self._words = HashingVectorizer(
            n_features=word_buckets,
            ngram_range=(1, 2),
            stop_words="english",
            token_pattern=r"(?u)\b\w[\w+]*\b",
            norm=None,
        )
        self._letters = HashingVectorizer(
            n_features=letter_buckets, analyzer="char_wb", ngram_range=(3, 5), norm=None
        )

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text, or zeros for a text without a single word."""
        # Equal parts ranked best of the four weights tried, 0 to 1; words alone were clearly worst.
        counted = self._words.transform(
            [_IDENTIFIER.sub(r"\g<0> \g<0> \g<0>", each) for each in texts]
        )
        parts = [_damped(counted), _damped(self._letters.transform(texts))]
        vectors: list[list[float]] = normalize(np.hstack(parts)).tolist()
        return vectors


def chosen_embedding() -> Embedding:
    """The one that `$KERNELWRIGHT_EMBEDDING` names; static vectors of words without it.

    `static` and `hashed` are here; any other name is LangChain's (`hosted.py`).

    Raises:
        EmbeddingFailed: no such one, or what it needs is not installed or not set.
    """
    name = os.environ.get(CHOICE, "").strip()
    if name in ("", "static"):
        return StaticWords()
    if name == "hashed":
        return HashedWords()
    # LangChain takes a second to import, and only who names a model of its needs it.
    embedding: Embedding = import_module("knowledge.hosted").hosted(name)
    return embedding


def _damped(counts: csr_matrix) -> np.ndarray:
    """Sublinear counts, rows of unit length: the tenth mention says little more than the first."""
    counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
    dense: np.ndarray = normalize(counts).toarray()
    return dense
