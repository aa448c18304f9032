# Two commands first: `make demo` and `make test`. Both call `make setup`, and both run on the CPU, GPU or not.
PY := .venv/bin/python
GPU_PY := python
TWO_FILES := -n 2 --dist loadfile --no-loadscope-reorder # at a time: most tests wait for one rank; long files come first
TEST_ENV := CUDA_VISIBLE_DEVICES= TORCHDYNAMO_DISABLE=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: setup demo demo-base bench-fp8 test test-all test-gpu bench-gpu check clean

setup: .venv/.ready

.venv/.ready: pyproject.toml scripts/setup.sh
	bash scripts/setup.sh

demo: setup
	$(PY) -m demo.run

demo-base: setup
	$(PY) -m demo.pretraining.base

bench-fp8: setup
	$(PY) -m benchmarks.fp8

test: setup
	$(TEST_ENV) $(PY) -m pytest $(TWO_FILES) --durations=10 -m "not slow and not gpu" tests

test-all: setup
	$(TEST_ENV) $(PY) -m pytest $(TWO_FILES) --durations=20 -m "not gpu" tests

# With the container's Python, which has Transformer Engine. Every visible GPU is used; a test that needs more is skipped by name. Never run on a GPU yet (docs/gpu.md).
test-gpu:
	HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(GPU_PY) -m pytest -v -rs --timeout=1800 --durations=10 -m gpu tests/gpu

bench-gpu:
	$(GPU_PY) -m benchmarks.gpu_step

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(TEST_ENV) $(PY) -m pytest tests/unit/test_imports.py tests/unit/test_tree.py tests/unit/test_docs.py

clean:
	rm -rf runs/demo .pytest_cache .ruff_cache
