import os
import subprocess
import sys
import time

from demo.memory import PeakMemory, family, proportional_bytes

HOLD = "import sys; held = bytearray(b'x' * {n}); print('held', flush=True); sys.stdin.read()"


def hold(megabytes):
    command = [sys.executable, "-c", HOLD.format(n=megabytes << 20)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_counts_what_was_started_and_has_ended():
    alone = sum(map(proportional_bytes, family(os.getpid())))
    with PeakMemory() as memory:
        process = hold(200)
        assert process.pid in family(os.getpid())
        memory.look()
        process.communicate("")
    assert process.pid not in family(os.getpid())
    # Its bytes, and an interpreter; 10 MB less where another process has meanwhile mapped our libraries, too.
    assert 190 << 20 < memory.bytes - alone < 260 << 20


def test_looks_by_itself(monkeypatch):
    monkeypatch.setattr("demo.memory._EVERY_SECONDS", 0.01)
    with PeakMemory() as memory:
        time.sleep(0.5)
        assert memory.bytes > 0


def test_a_process_that_has_ended_weighs_nothing():
    process = hold(1)
    process.communicate("")
    assert proportional_bytes(process.pid) == 0
