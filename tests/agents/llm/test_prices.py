"""What a call costs."""

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


@pytest.mark.parametrize("text", ["models = 3", "[models]\nx = { input = -1, output = 0 }", "["])
def test_a_file_that_is_no_price_list_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="is not a price list") as caught:
        Prices.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Prices.load(tmp_path / "nowhere.toml")
