#!/usr/bin/env bash
# Make .venv with everything that pyproject.toml pins. Called by `make setup`; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

# Python 3.12: $PYTHON, the PATH, or pyenv (whose python3.12 shim fails unless that version is chosen).
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 python3; do
    if [ "$("$candidate" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null)" = "3 12" ]; then
      echo "$candidate"
      return
    fi
  done
  echo "setup: no Python 3.12 found; install it, or name it: make setup PYTHON=/path/to/python3.12" >&2
  exit 1
}

started=$SECONDS
if [ ! -x .venv/bin/python ]; then
  python=$(find_python)
  echo "setup: making .venv with $("$python" --version)"
  "$python" -m venv .venv || { rm -rf .venv; exit 1; } # Debian says which package lacks; half a .venv would pass next time
fi
# uv resolves with the overrides in pyproject.toml and links from its cache; pip can do neither.
.venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9' 2>&1 | grep -v '^WARNING: Location' || true
echo "setup: installing the pinned packages (about 7 GB on disk; minutes on the first time, seconds after)"
.venv/bin/uv pip install --quiet --python .venv/bin/python -e '.[dev,data-prep]'
# Bytecode now: where PYTHONDONTWRITEBYTECODE is set, every process would compile Megatron again.
# Some packages carry templates that no Python reads: what fails to compile is left alone.
PYTHONWARNINGS=ignore .venv/bin/python -m compileall -qq -j 0 .venv/lib || true
touch .venv/.ready
echo "setup: ready in $((SECONDS - started)) s"
