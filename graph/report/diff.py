"""What a trial changed: the lines that differ between two sources, highlighted and bounded."""

import re
from difflib import SequenceMatcher
from functools import lru_cache
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from graph.report.source import highlight_module

CONTEXT = 3
# Longer sources are compared up to here, and go without colours from there: both take seconds.
COMPARED, COLOURED = 80_000, 30_000
_LINE_END = re.compile(r"\r\n|\r")


class Changes(NamedTuple):
    """How many lines came and went, and the hunks as HTML; empty where nothing differs."""

    added: int
    removed: int
    html: Markup


class _Side(NamedTuple):
    """A source's lines, as text and as HTML."""

    text: list[str]
    html: list[str]


def changes(before: str, after: str, limit: int) -> Changes:
    """The lines that differ, with three lines around them.

    Args:
        before: source of the one that it is held against.
        after: source of the one that is looked at.
        limit: characters of text shown at most; what is left out is counted.
    """
    if before == after:
        return Changes(0, 0, Markup())
    old, new = _side(before), _side(after)
    matcher = SequenceMatcher(None, old.text, new.text, autojunk=False)
    opcodes = matcher.get_opcodes()
    added = sum(d - c for tag, _, _, c, d in opcodes if tag != "equal")
    removed = sum(b - a for tag, a, b, _, _ in opcodes if tag != "equal")
    pieces: list[str] = []
    left, dropped = limit, 0
    for group in matcher.get_grouped_opcodes(CONTEXT):
        first, last = group[0][3] + 1, group[-1][4]
        head = f"line {first}" if first >= last else f"lines {first}–{last}"
        lines = [f'<span class="hunk">{head}</span>']
        for tag, a, b, c, d in group:
            for kind, text, html in _lines(tag, (a, b, c, d), old, new):
                left -= len(text) + 2
                if left >= 0:
                    lines.append(_shown(kind, html))
                elif kind != " ":
                    dropped += 1
        if len(lines) > 1:
            pieces += lines
    if dropped:
        pieces.append(f'<span class="hunk">… {dropped} more lines differ …</span>')
    return Changes(added, removed, Markup("".join(pieces)))


@lru_cache(maxsize=128)
def _side(source: str) -> _Side:
    text = _LINE_END.sub("\n", source[:COMPARED])
    lines = text.split("\n")
    html = str(highlight_module(text, COLOURED)).split("\n") if len(text) <= COLOURED else []
    # A lexer that adds or drops a line would put colours on the wrong ones.
    return _Side(lines, html if len(html) == len(lines) else [escape(line) for line in lines])


def _lines(
    tag: str, span: tuple[int, int, int, int], old: _Side, new: _Side
) -> list[tuple[str, str, str]]:
    """Sign, text and HTML of an opcode's lines."""
    a, b, c, d = span
    if tag == "equal":
        return [(" ", new.text[at], new.html[at]) for at in range(c, d)]
    gone = [("-", old.text[at], old.html[at]) for at in range(a, b)]
    return gone + [("+", new.text[at], new.html[at]) for at in range(c, d)]


def _shown(kind: str, html: str) -> str:
    match kind:
        case "+":
            return f"<ins>+ {html}</ins>"
        case "-":
            return f"<del>- {html}</del>"
        case _:
            return f"<span>  {html}</span>"
