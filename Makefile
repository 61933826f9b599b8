# `make run` and `make test` work on a machine that has Python 3.11+, a C++ compiler and pip.
PYTHON ?= python3
TASK ?= examples/scale_gelu_sum.yaml
BIN := .venv/bin
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: run studio test test-all check format gpu gpu-wheels clean
.DELETE_ON_ERROR:

run: .venv/ready
	$(BIN)/python -m graph.run $(TASK)

# LangGraph Studio and its HTTP API, on port 2024. Kernels that a run writes must not restart it.
studio: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[studio]'
	$(BIN)/langgraph dev --no-reload $(STUDIO)

# Tests that judge or time a kernel have the machine to themselves; the others share its cores, with
# idle threads that sleep rather than spin on a core that another process could use.
ALONE := $(addprefix tests/,evil honest eval/fleet/test_cluster.py eval/test_judged.py $(addprefix graph/test_, \
	api.py going_on.py graph.py mcp_bench.py mcp_tasks.py mcp_wire.py piecewise.py repairs.py run.py studio.py \
	workloads.py) \
	$(addprefix tools/judge/test_,client.py command.py environment.py gauntlet.py readout.py soak.py \
	turns.py))
SHARED := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
test: .venv/ready-dev
	$(SHARED) -m "not exhaustive" $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(ALONE)

test-all: test
	$(SHARED) -m exhaustive $(ALONE:%=--ignore=%)

check: .venv/ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: .venv/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# On a machine with a GPU, whose own Python holds torch and triton: no virtual environment is made.
GPU_PYTHON ?= python3
PART ?= 1/1
GPU ?=
gpu:
	$(GPU_PYTHON) -m benchmarks.gpu run --part $(PART) $(GPU)

gpu-wheels: .venv/ready
	$(BIN)/python -m benchmarks.gpu wheels --to gpu-wheels

clean:
	rm -rf .venv

# torch first and exactly: a range would let pip choose a build with gigabytes of GPU libraries.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: Kernelwright needs Python 3.11 or newer. Try: make run PYTHON=python3.12"; exit 1; }
	@command -v g++ >/dev/null || command -v clang++ >/dev/null || \
		{ echo "no C++ compiler was found: install g++ (for example: apt install g++)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
