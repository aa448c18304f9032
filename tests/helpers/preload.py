"""What the launcher's server process imports once, so that every forked rank has it (see tests/helpers/launcher.py)."""

from nemo_amalia.platform import prepare

prepare()
