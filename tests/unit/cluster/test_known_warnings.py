"""What is silenced is named; the same libraries are heard on anything else."""

import logging
import subprocess
import sys

from nemo_amalia.cluster.known_warnings import _LOGGED, silence_known_warnings

PROGRAM = """
import warnings
from nemo_amalia.cluster.known_warnings import silence_known_warnings
silence_known_warnings()
name = "megatron.core.transformer.transformer_config"
for message, module in (("full scope is deprecated. Use", name), ("full scope is deprecated", "ours"), ("other", name)):
    warnings.warn_explicit(message, UserWarning, f"{module}.py", 1, module)
"""


def test_loggers_are_heard_on_anything_else(caplog):
    silence_known_warnings()
    silence_known_warnings()
    for name, begins in _LOGGED.items():
        logging.getLogger(name).warning("%s: and more", begins)
        assert not caplog.records
        logging.getLogger(name).warning("something else")
        assert [record.message for record in caplog.records] == ["something else"]
        caplog.clear()
        assert len(logging.getLogger(name).filters) == 1


def test_warnings_of_other_words_or_modules_are_heard():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    heard = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    assert [line.split("UserWarning: ")[1] for line in heard] == ["full scope is deprecated", "other"]
