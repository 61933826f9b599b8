"""The task file: what a user may write, and the one line she gets for what she may not."""

from pathlib import Path

import pytest

from knowledge.errors import BadInput
from tools.task import Task, load_task

REFERENCE = "class Model: ...\n"


def written(folder: Path, text: str) -> Path:
    (folder / "op.py").write_text(REFERENCE, encoding="utf-8")
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_task(written(folder, text), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_reference_alone_is_a_task(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, "reference: op.py\n"))
    assert task.reference == tmp_path / "op.py"
    assert task.name == "task"
    assert task.budget.trials == 12


def test_every_example_is_a_task() -> None:
    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    assert len(examples) >= 5
    for path in examples:
        assert load_task(path).name == path.stem


def test_set_replaces_a_value_in_a_section(tmp_path: Path) -> None:
    path = written(tmp_path, "reference: op.py\nbudget: {trials: 3, minutes: 2}\n")
    task = load_task(path, ("budget.trials=5", "pages=huge", "name=renamed"))
    assert (task.budget.trials, task.budget.minutes) == (5, 2.0)
    assert (task.pages, task.name) == ("huge", "renamed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not YAML"),
        ("- just\n- a list\n", "is not a task"),
        ("", "is not a task"),
        ("1: 2\nreference: op.py\n", "is not a task"),
        ("reference: op.py\nbugdet: {}\n", 'bugdet: is not a known key. Did you mean "budget"?'),
        ("reference: op.py\nbudget: {trails: 3}\n", 'Did you mean "trials"?'),
        ("reference: op.py\nzzzzzz: 1\n", "Known: arguments, autotune, backend"),
        ("op: torch.relu\ninputs: [{shap: [2]}]\n", 'Did you mean "shape"?'),
        ("reference: nowhere.py\n", "nowhere.py does not exist."),
        ("name: x\n", "give exactly one of reference, op, module, definition (found none of them)"),
        ("reference: op.py\nop: torch.relu\n", "found reference and op"),
        ("op: torch.relu\n", "op needs inputs"),
        ("reference: op.py\ninputs: [{shape: [2]}]\n", "a reference brings get_inputs()"),
        ("op: torch.relu\ninputs: [{shape: [2, 0]}]\n", "has a size below 1"),
        ("op: torch.relu\ninputs: [{shape: [2], dtype: flaot32}]\n", 'did you mean "float32"?'),
        ("op: torch.relu\ninputs: [{shape: [2], dtype: int64}]\n", "needs high"),
        ("op: torch.relu\ninputs: [{shape: [2]}]\narguments: {not a name: 1}\n", "is not a name"),
        ("reference: op.py\nmodel: gpt\n", '"gpt" is neither "playbook" nor a model like openai:'),
        ("reference: op.py\nmodel: {plannr: openai:x}\n", 'Did you mean "planner"?'),
        ("reference: op.py\nmodel: {planner: openai:x}\n", "needs a model as coder"),
        ("reference: op.py\ncrew: model\n", "crew model needs a model"),
        ("reference: op.py\nbase_url: localhost\n", "is not an address like http://"),
        ("reference: op.py\nbase_url: http://me:secret@host/v1\n", "is not an address like"),
        ("reference: op.py\nmodel_settings: {options: {api_key: k}}\n", "keys come from variables"),
        ("reference: op.py\nmodel_settings: {temprature: 1}\n", 'Did you mean "temperature"?'),
        ("reference: op.py\nprices: nowhere.toml\n", "nowhere.toml does not exist."),
        ("reference: op.py\nbudget: {trials: many}\n", "budget.trials"),
        ("reference: op.py\nbudget: {trials: 0}\n", "greater than or equal to 1"),
        ("reference: op.py\nstrategy: luck\n", "strategy"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    message = complaint(tmp_path, text)
    assert said in message
    assert "task.yaml" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trials", "is not key=value"),
        ("=3", "is not key=value"),
        ("name.x=3", "name is not a section"),
        ("budget.trials=[", "not YAML"),
        ("budget.trails=3", 'Did you mean "trials"?'),
    ],
)
def test_a_bad_override_is_one_line(tmp_path: Path, override: str, said: str) -> None:
    assert said in complaint(tmp_path, "name: x\nreference: op.py\n", override)


def test_a_missing_task_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_task(tmp_path / "nothing.yaml")


def test_a_binary_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(BadInput, match="is not YAML"):
        load_task(path)


def test_a_task_survives_its_json(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, "reference: op.py\nname: a\n"))
    assert Task.model_validate_json(task.model_dump_json()) == task


def test_a_model_may_be_one_for_all_roles_or_named_by_role(tmp_path: Path) -> None:
    one = load_task(written(tmp_path, "reference: op.py\nmodel: openai:gpt-5\n"))
    assert one.model.of("planner") == one.model.of("profiler") == "openai:gpt-5"
    text = "reference: op.py\nmodel: {coder: ollama:qwen3, default: playbook}\n"
    several = load_task(written(tmp_path, text))
    assert (several.model.of("coder"), several.model.of("planner")) == ("ollama:qwen3", "playbook")
    assert several.model.named == ("ollama:qwen3",)


def test_a_named_model_makes_the_crew_hybrid_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = written(tmp_path, "reference: op.py\n")
    assert load_task(path).way_of_thinking == "playbook"
    assert load_task(path, ("model=openai:gpt-5",)).way_of_thinking == "hybrid"
    alone = load_task(path, ("model=openai:gpt-5", "crew=model"))
    assert alone.way_of_thinking == "model"


def test_a_task_with_models_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    text = "reference: op.py\nmodel: {coder: openai:a}\nbase_url: {openai: http://h/v1}\n"
    task = load_task(written(tmp_path, text))
    assert Task.model_validate_json(task.model_dump_json(exclude_defaults=True)) == task
