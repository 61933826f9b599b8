"""What a call costs."""

import re
from pathlib import Path

import pytest

from agents.llm.prices import VARIABLE, Prices
from knowledge.errors import BadInput

OWN = """[models]
"openai:gpt-5" = { input = 2.0, output = 4.0 }
"mine:*" = { input = 1, output = 1 }
"""


def test_tokens_are_priced_by_the_million() -> None:
    usd = Prices.load().usd("openai:gpt-5", 1_000_000, 100_000)
    assert usd == pytest.approx(1.25 + 1.0)


@pytest.mark.parametrize(
    "dated", ["openai:gpt-5-2025-08-07", "anthropic:claude-sonnet-4-5-20250929"]
)
def test_a_release_costs_what_its_model_costs(dated: str) -> None:
    assert Prices.load().of(dated) is not None


def test_a_longer_name_is_another_model() -> None:
    prices = Prices.load()
    assert prices.of("openai:gpt-5-mini") != prices.of("openai:gpt-5")
    assert prices.of("openai:gpt-5-enormous") is None


def test_an_unknown_price_is_none_and_not_nothing() -> None:
    assert Prices.load().usd("openai:my-own-model", 1000, 1000) is None
    assert Prices.load().usd("ollama:qwen3", 1000, 1000) == 0.0


def test_a_users_file_replaces_rows_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(path))
    prices = Prices.load()
    assert prices.usd("openai:gpt-5", 1_000_000, 1_000_000) == pytest.approx(6.0)
    assert prices.of("mine:anything") is not None
    assert prices.of("openai:gpt-5-mini") == Prices.load(path).of("openai:gpt-5-mini")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models = 3", "models: "),
        ("[", "at end of document"),
        ('[models]\n"a:b" = { input = -1, output = 0 }', "models.a:b.input: "),
        ('[models]\n"a:b" = { input = inf, output = 0 }', "models.a:b.input: "),
        ('[models]\n"a:b" = { input = 1 }', "models.a:b.output: "),
        ('[model]\n"a:b" = { input = 1, output = 2 }', "(model: "),
        # Names that no model would ever be found under.
        ("[models]\ngpt-5 = { input = 1, output = 2 }", "models.gpt-5: "),
        ('[models]\n"openai:gpt-*" = { input = 1, output = 2 }', "models.openai:gpt-*: "),
    ],
)
def test_a_file_that_is_no_price_list_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="is not a price list") as caught:
        Prices.load(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "errors.pydantic" not in str(caught.value)


def test_a_file_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN, encoding="utf-8-sig")
    assert Prices.load(path).of("mine:anything") is not None


def test_every_price_that_is_shipped_has_its_month_and_the_list_its_sources() -> None:
    shipped = Prices.load()
    months = {price.as_of or shipped.as_of for price in shipped.models.values()}
    assert all(re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", month) for month in months)
    assert all(source.startswith("https://") for source in shipped.sources)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Prices.load(tmp_path / "nowhere.toml")
