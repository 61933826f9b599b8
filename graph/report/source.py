"""Kernel source as highlighted HTML: Python as Python, the C++ in its string constants as C++.

What comes in was written by a model or a rule, so it is escaped always and bounded always.
"""

import ast
import re
from functools import lru_cache
from html import escape
from typing import NamedTuple

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import CppLexer, CudaLexer, PythonLexer

_QUOTES = re.compile(r"^[A-Za-z]*(\"\"\"|'''|\"|')")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANKS = re.compile(r'<span class="w">(\s*)</span>')
_NATIVE = re.compile(r'#include|extern "C"|__global__|#pragma')
# A highlighted character costs about five; a source made of operators alone could cost thirty.
_MOST_GROWTH = 8


class _Island(NamedTuple):
    """A string constant of native source: where quotes and text begin and end, and its lexer."""

    opening: int
    start: int
    end: int
    closing: int
    lexer: Lexer


def highlight_module(source: str, limit: int) -> Markup:
    """At most `limit` characters of a Python module, as HTML spans with pygments' class names.

    A source that does not parse is highlighted as Python throughout.
    """
    shown, left_out = _bounded(source, limit)
    cursor = 0
    pieces: list[str] = []
    for island in _islands(source):
        pieces += [
            _spans(shown[cursor : island.opening], _lexer(PythonLexer)),
            _quotes(shown[island.opening : island.start]),
            _spans(shown[island.start : island.end], island.lexer),
            _quotes(shown[island.end : island.closing]),
        ]
        cursor = island.closing
    pieces.append(_spans(shown[cursor:], _lexer(PythonLexer)))
    html = "".join(pieces)
    if len(html) > _MOST_GROWTH * max(len(shown), 1000):
        html = escape(shown)
    return Markup(html + escape(left_out))


def _bounded(source: str, limit: int) -> tuple[str, str]:
    if len(source) <= limit:
        return source, ""
    cut = source.rfind("\n", 0, limit) + 1 or limit
    lines = source.count("\n", cut)
    return source[:cut], f"… {max(lines, 1)} more lines in the file …"


def _lexer(kind: type[Lexer]) -> Lexer:
    return kind(stripnl=False, ensurenl=False)


def _spans(text: str, lexer: Lexer) -> str:
    if not text:
        return ""
    html = _BLANKS.sub(r"\1", highlight(text, lexer, HtmlFormatter(nowrap=True)))
    # The formatter ends every text with a newline, its own or not.
    return html if text.endswith("\n") else html.removesuffix("\n")


def _quotes(text: str) -> str:
    return f'<span class="s">{escape(text)}</span>' if text else ""


@lru_cache(maxsize=128)
def _islands(source: str) -> tuple[_Island, ...]:
    """Where native source lies in a module, in order."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ()
    starts = _line_starts(source)
    found: list[_Island] = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        if "\n" in node.value and _NATIVE.search(node.value) and node.end_lineno is not None:
            begin = _offset(source, starts, node.lineno, node.col_offset)
            end = _offset(source, starts, node.end_lineno, node.end_col_offset or 0)
            if island := _inside(source, begin, end):
                found.append(island)
    return tuple(sorted(found, key=lambda island: island.start))


def _inside(source: str, begin: int, end: int) -> _Island | None:
    """The text between a literal's quotes; None where several literals make the string."""
    literal = source[begin:end]
    quotes = _QUOTES.match(literal)
    if quotes is None or not literal.endswith(quotes[1]):
        return None
    kind = CudaLexer if "__global__" in literal else CppLexer
    return _Island(begin, begin + quotes.end(), end - len(quotes[1]), end, _lexer(kind))


def _line_starts(source: str) -> list[int]:
    return [0, *(match.end() for match in _LINE_END.finditer(source))]


def _offset(source: str, starts: list[int], line: int, byte_column: int) -> int:
    """From ast's position (a line from 1, a column in UTF-8 bytes) to an index into `source`."""
    text = source[starts[line - 1] : starts[line] if line < len(starts) else len(source)]
    return starts[line - 1] + len(text.encode()[:byte_column].decode())
