"""A small project to index, and libraries that live in a temporary folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge.store import Library

PAGES = {
    "docs/cpu/softmax.md": """---
title: Softmax in one sweep
kind: pattern
devices: [cpu]
ops: [softmax]
bottlenecks: [memory]
sources: [a book]
---
Opening words about rows.

## Running maximum
Rescale the sum whenever the maximum grows.

## Denominator
Divide once, by multiplying with the reciprocal.
""",
    "docs/gpu/banks.md": """---
title: Shared memory banks
kind: hardware
devices: [cuda]
bottlenecks: [latency]
sources: [a manual]
---
Thirty-two banks serve a warp; pad the tile to avoid conflicts.
""",
    "docs/general.md": """---
title: Summation order
kind: document
sources: [a paper]
---
Pairwise summation keeps rounding errors small in every softmax and norm.
""",
    "repairs/gomp.md": """---
title: Undefined symbol GOMP_parallel
kind: repair
devices: [cpu]
sources: [a manual]
---
Link with -fopenmp.
""",
    "patterns/fused/card.toml": """
name = "fused"
title = "One fused loop over rows"
precondition = "a softmax or a norm over the last dimension"
effect = "one trip to memory instead of three"
bottleneck = "memory"
backends = ["cpp"]
""",
    "patterns/fused/notes.md": "# Notes on the fused row loop\n\nRows stay in the cache.\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in PAGES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def library(tmp_path: Path, project: Path) -> Iterator[Library]:
    opened = Library.open(tmp_path / "library", project=project)
    yield opened
    opened.close()
