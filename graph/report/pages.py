"""The pages that a run's plans cite, whole, so that a reader can open them without the library.

A copy is kept in the run's folder (`cited.json`): pages change, and a report that is made again
should quote what the run read.
"""

import json
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

import knowledge
from graph.record import RunRecord
from knowledge.documents import READERS
from knowledge.opgraph import Frozen
from knowledge.pages import SOURCE, Unreadable, load_bytes, parse, project_files

CITED = "cited.json"
KNOWLEDGE = Path(knowledge.__file__).parent
# Of what is kept of one page; a cited book is not copied whole.
KEPT_CHARACTERS = 60_000


class Section(Frozen):
    """A part of a page under its heading; the first has none."""

    heading: str
    text: str


class Page(Frozen):
    """A page as it was when it was cited."""

    title: str
    sections: tuple[Section, ...]
    code: bool = False


Pages = dict[str, Page]
_PAGES: TypeAdapter[Pages] = TypeAdapter(Pages)
# Raw HTML is escaped; what could point out of the page stays as it is written.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_MARKDOWN.disable(["image", "link", "autolink", "reference"])


def label_of(source: str) -> str:
    """The page of a citation, e.g. `docs/cpu/pages.md` of `docs/cpu/pages.md#first touch`."""
    return source.partition("#")[0]


def pages_of(record: RunRecord, folder: Path | None = None) -> Pages:
    """Every cited page that is at hand, by its label: as it was kept, else as it is now."""
    labels = dict.fromkeys(
        label_of(citation.source) for plan in record.plans for citation in plan.citations
    )
    kept = _kept(folder / CITED) if folder is not None else {}
    own = dict(project_files(KNOWLEDGE)) if any(label not in kept for label in labels) else {}
    found = {label: kept.get(label) or _read(label, own.get(label)) for label in labels}
    return {label: page for label, page in found.items() if page is not None}


def missing(record: RunRecord, pages: Pages) -> list[str]:
    """Labels of cited pages that are not at hand."""
    cited = (label_of(one.source) for plan in record.plans for one in plan.citations)
    return [label for label in dict.fromkeys(cited) if label not in pages]


def dump(pages: Pages) -> str:
    """Pages as they are kept."""
    return json.dumps({label: page.model_dump() for label, page in pages.items()}, indent=1)


def _kept(path: Path) -> Pages:
    try:
        return _PAGES.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def _read(label: str, own: Path | None) -> Page | None:
    """One of the project's pages, or a user's file that is still where it was."""
    path = own if own is not None else Path(label)
    if own is None and not path.is_absolute():
        return None
    content = load_bytes(path)
    page = content if isinstance(content, Unreadable) else parse(label, path, content)
    if isinstance(page, Unreadable):
        return None
    sections: list[Section] = []
    left = KEPT_CHARACTERS
    for chunk in page.chunks:
        text, left = chunk.text[:left], left - len(chunk.text)
        if sections and sections[-1].heading == chunk.heading:
            joined = f"{sections[-1].text}\n\n{text}"
            sections[-1] = Section(heading=chunk.heading, text=joined)
        elif text:
            sections.append(Section(heading=chunk.heading, text=text))
        if left <= 0:
            break
    suffix = path.suffix.lower()
    return Page(
        title=page.title,
        sections=tuple(sections),
        code=own is None and suffix in SOURCE and suffix not in READERS,
    )


def html_of(page: Page, cited: set[str], limit: int) -> Markup:
    """A page's text, at most `limit` characters of it; the sections that were cited are marked.

    Args:
        page: what is shown.
        cited: headings as citations name them, in small letters.
        limit: of characters; cited sections come first where not all of them fit.
    """
    order = sorted(page.sections, key=lambda one: one.heading.lower() not in cited)
    shown: dict[int, str] = {}
    for section in order:
        if limit > 0:
            shown[id(section)] = section.text[:limit]
            limit -= len(section.text)
    pieces = [
        _section(one.heading, shown[id(one)], page.code, one.heading.lower() in cited)
        for one in page.sections
        if id(one) in shown
    ]
    if limit < 0 or len(shown) < len(page.sections):
        pieces.append(Markup('<p class="muted">The rest of the page is left out here.</p>'))
    return Markup("").join(pieces)


def _section(heading: str, text: str, code: bool, cited: bool) -> Markup:
    head = Markup("<h4>{}</h4>").format(heading) if heading else Markup()
    bounded = "".join(one for one in text if one in "\n\t" or one.isprintable())
    body = Markup("<pre>{}</pre>").format(bounded) if code else Markup(_MARKDOWN.render(bounded))
    return Markup('<div class="quoted">{}{}</div>').format(head, body) if cited else head + body
