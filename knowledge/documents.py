"""Markdown out of documents that are none: PDF and HTML.

What comes out is cut and indexed like any other page; what was drawn as a picture is not there.
"""

import io
import re
from collections.abc import Callable

from bs4 import BeautifulSoup
from bs4.exceptions import ParserRejectedMarkup
from markdownify import markdownify
from pypdf import PdfReader

# Parts of a web page that say nothing about its subject.
FURNITURE = ("script", "style", "nav", "header", "footer", "aside", "form", "noscript", "svg")


class NoText(Exception):
    """A document that has no text to index; the message says why."""


def markdown_of_pdf(content: bytes) -> str:
    """The text of a PDF, a heading for each of its pages, its title first.

    Raises:
        NoText: it cannot be read, is encrypted, or holds pictures alone.
    """
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise NoText("a PDF with a password")
        pages = [page.extract_text() for page in reader.pages]
        title = (reader.metadata.title if reader.metadata else None) or ""
    except NoText:
        raise
    except Exception as error:
        # A damaged file makes the reader fail in any way there is.
        raise NoText(f"a PDF that cannot be read ({type(error).__name__})") from error
    told = [
        f"## page {number}\n\n{_paragraphs(_sound(text))}"
        for number, text in enumerate(pages, 1)
        if text.strip()
    ]
    title = _sound(title)
    if not told:
        raise NoText("a PDF without text: its pages are pictures")
    return "\n\n".join([*([f"# {title.strip()}"] if title.strip() else []), *told])


def _sound(text: str) -> str:
    """The text with halves of surrogate pairs joined, and lone ones replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _paragraphs(text: str) -> str:
    """Lines as a PDF has them, words put together again that were divided at a line's end."""
    joined = re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)
    # A line that begins with # would be taken for a heading.
    return re.sub(r"^(#+)", r"\\\1", joined, flags=re.MULTILINE)


def markdown_of_html(content: bytes) -> str:
    """The text of a web page as Markdown, without what stands around its subject.

    Raises:
        NoText: nothing is left, or its tags are nested too deep.
    """
    try:
        soup = BeautifulSoup(content, "html.parser")
        title = soup.title.get_text(" ", strip=True) if soup.title else ""
        for part in soup(FURNITURE):
            part.decompose()
        subject = soup.find("main") or soup.find("article") or soup.body or soup
        text = markdownify(str(subject), heading_style="ATX", strip=["a", "img", "title"]).strip()
    except (ParserRejectedMarkup, RecursionError) as error:
        raise NoText(f"an HTML page that cannot be read ({type(error).__name__})") from error
    if not text:
        raise NoText("an HTML page without text")
    return f"# {title}\n\n{text}" if title else text


READERS: dict[str, Callable[[bytes], str]] = {
    ".pdf": markdown_of_pdf,
    ".html": markdown_of_html,
    ".htm": markdown_of_html,
}
