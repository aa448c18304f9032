# shellcheck shell=bash disable=SC2034
# No container: the virtual environment of `make setup` on a file system that all nodes see.
site_python=("${AMALIA_PYTHON:-$AMALIA_ROOT/.venv/bin/python}")
site_amalia=("${site_python[@]}" -m nemo_amalia.cli)
export PYTHONPATH=$AMALIA_ROOT${PYTHONPATH:+:$PYTHONPATH}
