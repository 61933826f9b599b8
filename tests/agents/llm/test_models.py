"""Models by their ids: what a user must install or set is said at once, in one line."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from agents.llm.models import NO_KEY, PROVIDERS, make_models
from knowledge.errors import BadInput
from tools.task import Task, parse_task

KEYS = [key for provider in PROVIDERS.values() for key in provider.keys]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)


def task(**settings: Any) -> Task:
    raw = {"op": "torch.relu", "inputs": [{"shape": [4, 4]}], **settings}
    return parse_task(raw, "op.yaml", Path())


def complaint(**settings: Any) -> str:
    with pytest.raises(BadInput) as caught:
        make_models(task(**settings), "op.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("google_genai:gemini-2.5-pro", "GOOGLE_API_KEY or GEMINI_API_KEY"),
    ],
)
def test_a_missing_key_is_one_line_that_names_the_variable(model: str, variable: str) -> None:
    if importlib.util.find_spec(PROVIDERS[model.partition(":")[0]].package) is None:
        pytest.skip("the provider's package is not installed")
    assert f"Set {variable} in the environment." in complaint(model=model)


def test_a_missing_package_is_one_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'kernelwright[openai]'" in complaint(model="openai:gpt-5")
    assert "pip install langchain-groq" in complaint(model="groq:llama")


def test_an_unknown_provider_is_one_line_that_names_some() -> None:
    assert "names no provider that LangChain knows. For example: openai" in complaint(
        model="oops:x"
    )


def test_every_role_is_looked_at_before_anything_is_made() -> None:
    told = complaint(model={"debugger": "anthropic:claude-sonnet-4-5"})
    assert "ANTHROPIC_API_KEY" in told


def test_the_playbook_needs_nothing() -> None:
    assert make_models(task(), "op.yaml") == {}
    assert make_models(task(model="openai:gpt-5", crew="playbook"), "op.yaml") == {}


def test_a_server_of_ones_own_needs_no_key_and_is_told_none() -> None:
    (model,) = make_models(
        task(model="openai:qwen3-coder", base_url="http://127.0.0.1:8000/v1"), "op.yaml"
    ).values()
    chat: Any = model.chat
    assert chat.openai_api_key.get_secret_value() == NO_KEY
    assert chat.openai_api_base == "http://127.0.0.1:8000/v1"


def test_settings_reach_the_model_and_the_key_of_a_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    settings = {"max_tokens": 500, "temperature": 0.5, "options": {"seed": 7}, "timeout_s": 9}
    (model,) = make_models(task(model="openai:gpt-4o", model_settings=settings), "op.yaml").values()
    chat: Any = model.chat
    assert (chat.max_tokens, chat.temperature, chat.seed, chat.request_timeout) == (500, 0.5, 7, 9)
    assert chat.max_retries == 0
    assert model.settings["seed"] == 7
    assert "planted" not in str(model.settings)


def test_a_server_that_cuts_long_questions_is_told_to_make_room() -> None:
    pytest.importorskip("langchain_ollama")
    (model,) = make_models(task(model="ollama:qwen3"), "op.yaml").values()
    chat: Any = model.chat
    assert chat.num_ctx > chat.num_predict
    options = {"options": {"num_ctx": 8192}}
    (model,) = make_models(task(model="ollama:qwen3", model_settings=options), "op.yaml").values()
    chat = model.chat
    assert chat.num_ctx == 8192


def test_no_more_is_asked_for_than_a_model_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    settings = {"max_tokens": 10**7}
    (model,) = make_models(task(model="openai:gpt-4o", model_settings=settings), "op.yaml").values()
    chat: Any = model.chat
    assert model.max_tokens == chat.max_tokens < 10**6


def test_a_base_url_may_be_for_one_provider_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "planted-0123456789")
    models = make_models(
        task(
            model={"planner": "anthropic:claude-sonnet-4-5", "default": "openai:local"},
            base_url={"openai": "http://127.0.0.1:8000/v1"},
        ),
        "op.yaml",
    )
    planner: Any = models["anthropic:claude-sonnet-4-5"].chat
    assert "127.0.0.1" not in str(planner.anthropic_api_url)
