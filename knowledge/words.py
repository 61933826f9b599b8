"""Text to the terms that BM25 counts: identifiers whole and in parts, words by their stems.

`smsp__inst_executed.avg` becomes itself, what stands between its dots, and each word in it; so it
is found by whoever pastes it and by whoever remembers half of it. Words of the field that mean the
same (`synonyms.txt`) share a term besides their own.
"""

import re
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path

import Stemmer
from bm25s.stopwords import STOPWORDS_EN

SYNONYMS = Path(__file__).parent / "synonyms.txt"
VERSION = 1
_RUN = re.compile(r"\w+(?:(?:\.|::|->|[-/+])\w+)*\+*")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# What people write around a symptom says nothing about it.
_ASIDE = (
    "i me my we us our you your one do does did how what which when where why who has have had can "
    "could should would than from after before so its only all each every any very too also about "
    "just were been being am"
)
_SILENT = frozenset((*STOPWORDS_EN, *_ASIDE.split()))

Term = tuple[str, ...]


def terms(text: str) -> list[str]:
    """The terms of a page or a query, repetitions and order kept, synonyms' terms at the end."""
    plain = list(_plain(text))
    phrases, longest = _phrases()
    shared = [
        term
        for start in range(len(plain))
        for length in range(1, min(longest, len(plain) - start) + 1)
        for term in phrases.get(tuple(plain[start : start + length]), ())
    ]
    return plain + shared


@cache
def rules() -> str:
    """Identity of the way text becomes terms: an index made by other rules is of no use."""
    content = f"{VERSION}\n{SYNONYMS.read_text(encoding='utf-8')}"
    return sha256(content.encode()).hexdigest()[:8]


def _plain(text: str) -> list[str]:
    found: list[str] = []
    for run in _RUN.findall(text):
        parts = [part for part in re.split(r"\W+", run) if part]
        if parts != [run]:
            found.append(run.lower())
        for part in parts:
            words = [word for word in re.split("_+", _CAMEL.sub("_", part)) if word]
            if len(words) > 1:
                found.append(part.lower().strip("_"))
            found += [_stem(word.lower()) for word in words if word.lower() not in _SILENT]
    return found


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    if not word.isalpha():
        return word
    # `vectorized` and `vectorised` are one word. A stemmer each call: one is not thread-safe.
    stem: str = Stemmer.Stemmer("english").stemWord(word.replace("iz", "is"))
    return stem


@cache
def _phrases() -> tuple[dict[Term, list[str]], int]:
    """The shared terms of every variant in `synonyms.txt`, and the longest variant's length."""
    shared: dict[Term, list[str]] = {}
    for line in SYNONYMS.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        variants = [variant.strip() for variant in line.split(",")]
        for variant in dict.fromkeys(tuple(_plain(each)) for each in variants):
            # No text has such a term of its own: an equals sign is no part of a word.
            shared.setdefault(variant, []).append(f"={variants[0]}")
    return shared, max(map(len, shared))
