"""Text to vectors on this machine: hashed words, word pairs and letter runs. No model, no download.

What it lacks in meaning, the pages make up for by being written in the words of the symptoms. A
second ranking by rare words was tried on 65 questions and did not pay: one more right page in the
top five among the project's 400 passages, two fewer among 12,000 foreign ones.
"""

import re
from typing import Protocol

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

VERSION = 1
# H200, GOMP_parallel, avx512: whoever types one means it, so it counts three times.
_IDENTIFIER = re.compile(r"\b(?=\w*[A-Za-z_])(?=\w*[\d_])\w+\b")


class Embedding(Protocol):
    """Turns texts into vectors of one fixed length."""

    @property
    def name(self) -> str:
        """Identity: two embeddings of one name give the same vector for the same text."""

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One unit vector a text, or zeros for a text without a single word."""


class HashedWords:
    """Signed feature hashing with sublinear term frequency.

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


def _damped(counts: csr_matrix) -> np.ndarray:
    """Sublinear counts, rows of unit length: the tenth mention says little more than the first."""
    counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
    dense: np.ndarray = normalize(counts).toarray()
    return dense
