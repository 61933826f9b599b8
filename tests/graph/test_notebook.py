"""A notebook, run by a real kernel of Jupyter's: a cell's lambda becomes a kernel, and a plot."""

import os
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.runner.jail import PROJECT

CELLS = (
    "import torch\nfrom graph import aoptimize, optimize\nWEIGHT = 0.5\nx = torch.randn(256, 512)",
    "settings = dict(trials=1, minutes=1, target='cpu', quiet=True)\n"
    "fast = optimize(lambda x: (x * WEIGHT).sum(-1), x, **settings)\nfast",
    "again = await aoptimize(torch.nn.Linear(512, 4), x, **settings)\nagain",
    "torch.testing.assert_close(fast(x), (x * WEIGHT).sum(-1))\n"
    "assert again(x).requires_grad and isinstance(again.module, torch.nn.Linear)\n"
    "print('its own source' in (fast.folder / 'taken' / 'reference.py').read_text())",
)


@pytest.mark.exhaustive
def test_a_cells_lambda_and_module_are_optimised_with_the_notebooks_loop_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_library: Callable[[], Path]
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(new_library()))
    search = filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells[1:3]:
        (shown,) = [one for one in cell.outputs if one.output_type == "execute_result"]
        assert "<svg" in shown.data["text/html"]
        assert shown.data["text/plain"].startswith("<Result of ")
    assert notebook.cells[3].outputs[0].text == "True\n"
