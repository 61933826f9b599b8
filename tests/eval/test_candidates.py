from pathlib import Path

import pytest

from eval.candidates import match_candidates, sample_number
from eval.problem import Labels, Problem
from knowledge.errors import BadInput
from tools.task import Task

PROBLEMS = [
    Problem(Task(name=name, op="torch.relu", inputs=({"shape": (2,)},)), Labels(level=level))
    for name, level in (
        ("level1/3_Softmax (dim=1)", 1),
        ("level2/3_Gemm_ReLU", 2),
        ("level1/13_conv2d", 1),
        ("conv3_block", None),
        ("kernel", None),
        ("41_upsample_2x", None),
    )
]


def matched(folder: Path, *files: str) -> dict[str, list[str]]:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("class ModelNew:\n    pass\n")
    found = match_candidates(folder, PROBLEMS)
    return {
        name: [file.relative_to(folder.resolve()).as_posix() for file in files]
        for name, files in found.candidates.items()
    }


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("level_1_problem_3_sample_0_kernel.py", 0),
        ("level_2_problem_3_sample_12_kernel.py", 1),
        ("level1_problem13.py", 2),
        ("level2/problem_3_sample_1.py", 1),
        ("problem_13_sample_0_kernel.py", 2),
        ("level1/3_Softmax (dim=1).py", 0),
        ("3_Softmax_dim_1.py", 0),
        ("3_gemm_relu_sample_2.py", 1),
        ("level2/3_Gemm_ReLU/kernel.py", 1),
        ("3_Gemm_ReLU/sample_4.py", 1),
        ("13_conv2d_kernel.py", 2),
        ("conv3_block.py", 3),
        ("kernel.py", 4),
        ("kernel_sample_1.py", 4),
        ("conv3_block/best.py", 3),
        ("conv3_block-ModelNew.py", 3),
        ("41_upsample_2x_kernel.py", 5),
        ("41_upsample_2x_sample_5_kernel.py", 5),
    ],
)
def test_usual_names_find_their_problem(tmp_path: Path, file: str, problem: int) -> None:
    assert matched(tmp_path, file) == {PROBLEMS[problem].task.name: [file]}


def test_samples_of_a_problem_come_in_their_order(tmp_path: Path) -> None:
    names = [f"level_1_problem_13_sample_{n}_kernel.py" for n in (10, 9, 0)]
    assert matched(tmp_path, *names) == {"level1/13_conv2d": names[::-1]}
    assert [sample_number(Path(name), 7) for name in names] == [10, 9, 0]
    assert sample_number(Path("softmax.py"), 7) == 7
    assert sample_number(Path("41_upsample_2x_sample_5.py"), 7) == 5


def test_a_kernel_for_no_problem_or_for_two_is_named_with_the_reason(tmp_path: Path) -> None:
    matched(tmp_path, "level_1_problem_3_sample_0.py", "problem_3.py", "level_1_problem_99.py")
    found = match_candidates(tmp_path, PROBLEMS)
    told = {one.file: one.reason for one in found.unmatched}
    assert told["level_1_problem_99.py"] == "fits no problem"
    assert told["problem_3.py"].startswith("fits 2 problems (level1/3_Softmax")
    assert len(found.candidates) == 1


def test_a_folder_without_a_kernel_for_the_suite_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        match_candidates(tmp_path / "none", PROBLEMS)
    (tmp_path / "other.py").write_text("")
    with pytest.raises(BadInput, match="holds no kernel for any problem") as raised:
        match_candidates(tmp_path, PROBLEMS)
    assert "\n" not in str(raised.value)
