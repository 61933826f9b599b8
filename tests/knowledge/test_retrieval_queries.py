"""The labelled queries: enough, each with pages that exist, and a third drawn blindly."""

import random

from benchmarks.retrieval import load_queries, page_name
from knowledge.pages import project_files
from knowledge.store import PROJECT

QUERIES = load_queries()
PAGES = {page_name(label) for label, _ in project_files(PROJECT)}


def test_every_label_is_a_page_of_the_library() -> None:
    assert {page for query in QUERIES for page in query.pages} <= PAGES


def test_there_are_enough_and_none_is_asked_twice() -> None:
    assert len({query.text for query in QUERIES}) == len(QUERIES) >= 120


def test_all_kinds_of_pages_are_asked_for() -> None:
    asked = {"/".join(page.split("/")[:2]) for query in QUERIES for page in query.pages}
    own = {"/".join(label.split("/")[:2]) for label, _ in project_files(PROJECT)}
    assert {section for section in own if section.startswith(("docs/", "repairs/"))} <= asked
    assert any(page.startswith("patterns/") for page in asked)
    assert any(page.startswith("devices/") for page in asked)


def test_the_held_out_third_is_the_one_that_was_drawn() -> None:
    drawn = random.Random(20).sample(range(len(QUERIES)), len(QUERIES) // 3)
    assert {at for at, query in enumerate(QUERIES) if query.held_out} == set(drawn)
