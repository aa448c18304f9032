# Two commands first: `make demo` and `make test`. Both call `make setup`, and both run on the CPU, GPU or not.
PY := .venv/bin/python
TEST_ENV := CUDA_VISIBLE_DEVICES= TORCHDYNAMO_DISABLE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: setup demo demo-base bench-fp8 test test-all check clean

setup: .venv/.ready

.venv/.ready: pyproject.toml scripts/setup.sh
	bash scripts/setup.sh

demo: setup
	$(PY) -m demo.run

demo-base: setup
	$(PY) -m demo.base

bench-fp8: setup
	$(PY) -m benchmarks.fp8

test: setup
	$(TEST_ENV) $(PY) -m pytest --durations=10 -m "not slow and not gpu" tests

test-all: setup
	$(TEST_ENV) $(PY) -m pytest --durations=20 -m "not gpu" tests

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(TEST_ENV) $(PY) -m pytest tests/unit/test_imports.py tests/unit/test_tree.py

clean:
	rm -rf runs/demo .pytest_cache .ruff_cache
