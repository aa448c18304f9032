"""The sandbox: what a program's outcome says, what is refused, and a pool that is killed, forked and copied."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sandboxed import needs_sandbox

import data_prep.sandbox.isolation as walls
import data_prep.sandbox.process as sandbox_process
from data_prep.sandbox.pool import Limits, Sandbox, SandboxMissingError
from nemo_amalia.utils.errors import UserError

pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(workers=2) as pool:
        yield pool


def zygote_of(pool: Sandbox):
    """The interpreter of a pool of one worker."""
    return pool._idle.queue[0]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize(
    ("code", "stdout", "value", "error", "limit"),
    [
        ("print('olá', '\\u20ac')", "olá €\n", None, None, None),
        ("x = 2\nx ** 10", "", "1024", None, None),
        ("'ação'", "", "'ação'", None, None),
        ("None", "", None, None, None),
        ("", "", None, None, None),
        ("print(1)\n1 / 0", "1\n", None, "ZeroDivisionError: division by zero", None),
        ("print(1", "", None, "SyntaxError: '(' was never closed (program.py, line 1)", None),
        ("raise SystemExit", "", None, None, None),
        ("import sys\nsys.exit(3)", "", None, "SystemExit: 3", None),
        ("import os\nos._exit(4)", "", None, "ended with status 4 before its end", None),
        ("import os\nos.write(1, b'\\xff')\n0", "\ufffd", "0", None, None),
        ("'\\udc80'", "", "'\\udc80'", None, None),
        ("import atexit\natexit.register(print, 'bye')\nprint('hi')", "hi\nbye\n", None, None, None),
        ("if __name__ == '__main__':\n    print(__name__)", "__main__\n", None, None, None),
        ("class A:\n    pass\nA.__module__", "", "'__main__'", None, None),
    ],
)
def test_an_outcome(sandbox, code, stdout, value, error, limit):
    outcome = sandbox.run(code)
    assert (outcome.stdout, outcome.value, outcome.error, outcome.limit) == (stdout, value, error, limit)
    assert outcome.ok == (error is None and limit is None) and outcome.seconds > 0


def test_stdin_and_files_of_its_own(sandbox):
    assert sandbox.run("[input(), input()]", "uma\nduas\n").value == "['uma', 'duas']"
    code = "open('a.txt', 'w').write('x'); import os; os.mkdir('d'); os.rename('a.txt', 'd/b'); open('d/b').read()"
    assert sandbox.run(code).value == "'x'"


def test_the_standard_library_is_there_and_nothing_else(sandbox):
    names = (
        "json re math datetime decimal fractions statistics itertools functools collections csv hashlib random heapq"
    )
    assert sandbox.run(f"import {names.replace(' ', ', ')}\nhashlib.md5(b'').hexdigest()[:4]").value == "'d41d'"
    assert "No module named 'numpy'" in sandbox.run("import numpy").error


def test_chance_is_fresh_in_each_program(sandbox):
    assert sandbox.run("import sys; 'random' in sys.modules").value == "False"
    values = {sandbox.run("import random; random.random()").value for _ in range(4)}
    assert len(values) == 4, "a generator seeded before the fork gives every program the same numbers"


def test_the_order_of_a_set_is_that_of_the_hash_seed():
    code = "list({'um', 'dois', 'três', 'quatro', 'cinco', 'seis'})"
    values = []
    for seed in (0, 0, 1):
        with Sandbox(1, hash_seed=seed) as pool:
            values.append(pool.run(code).value)
    assert values[0] == values[1] != values[2]


def test_many_threads_many_programs(sandbox):
    outcomes = list(sandbox.run_many([f"print({n})" for n in range(30)]))
    assert [outcome.stdout for outcome in outcomes] == [f"{n}\n" for n in range(30)]
    with ThreadPoolExecutor(6) as threads:
        slow = list(threads.map(sandbox.run, ["import time\ntime.sleep(0.1)\nprint(1)"] * 6))
    assert [outcome.stdout for outcome in slow] == ["1\n"] * 6 and sandbox.started == 2


@pytest.mark.parametrize("limits", [{"cpu_seconds": 0}, {"cpu_seconds": 1.5}, {"output_bytes": -1}])
def test_limits_that_cannot_be(limits):
    with pytest.raises(UserError, match="expected a positive"):
        Limits(**limits)


def test_what_is_too_long_is_refused(sandbox):
    for arguments in (("#" * 70_000,), ("", "x" * 70_000)):
        with pytest.raises(UserError, match="more than 65536 bytes"):
            sandbox.run(*arguments)
    with pytest.raises(UserError, match="0 workers"):
        Sandbox(0)


def test_without_the_isolator_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with Sandbox(1) as pool, pytest.raises(SandboxMissingError, match="no bwrap on PATH.*apt-get install bubblewrap"):
        pool.run("print('REACHED')")
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    with Sandbox(1) as pool, pytest.raises(SandboxMissingError, match="No permissions to create a new namespace"):
        pool.run("print('REACHED')")
    with Sandbox(1) as pool, pytest.raises(SandboxMissingError, match="libseccomp"):
        monkeypatch.setattr(walls.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(f"{name}: no such file")))
        pool.run("print('REACHED')")


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(walls.sys, "platform", "darwin")
    with pytest.raises(SandboxMissingError, match="run it on Linux"):
        walls.bwrap_command([], 3, 0)


def test_a_call_that_libseccomp_does_not_know(monkeypatch):
    monkeypatch.setattr(walls, "allowed_calls", lambda: ["read", "raed"])
    with pytest.raises(UserError, match="'raed', which libseccomp does not know"):
        walls.seccomp_program()


def test_a_killed_interpreter_is_replaced():
    with Sandbox(1) as pool:
        assert pool.run("1").value == "1"
        os.kill(zygote_of(pool)._child, signal.SIGKILL)
        assert pool.run("2").value == "2" and pool.started == 2


def test_an_interpreter_that_does_not_answer_is_replaced(monkeypatch):
    monkeypatch.setattr(sandbox_process, "GRACE", 0.2)
    with Sandbox(1, Limits(wall_seconds=0.5)) as pool:
        assert pool.run("1").value == "1"
        os.kill(zygote_of(pool)._child, signal.SIGSTOP)
        assert pool.run("2").value == "2" and pool.started == 2


def test_nothing_is_left_when_it_closes():
    pool = Sandbox(2)
    list(pool.run_many(["1"] * 4))
    pids = [pid for zygote in pool._idle.queue for pid in (zygote._child, zygote._process.pid)]
    assert all(map(alive, pids))
    pool.close()
    assert not any(map(alive, pids))
    assert pool.run("3").value == "3"  # and it may be used again
    pool.close()


def test_nothing_is_left_when_the_host_is_killed():
    code = (
        "import sys, time\nfrom data_prep.sandbox.pool import Sandbox\npool = Sandbox(1)\npool.run('1')\n"
        "zygote = pool._idle.queue[0]\nprint(zygote._child, zygote._process.pid, flush=True)\n"
        "pool.run('while True: pass')\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 2
    time.sleep(0.3)
    host.kill()
    host.wait()
    host.stdout.close()
    assert all(gone(pid) for pid in pids)


def _in_child(pool: Sandbox, queue) -> None:
    queue.put((pool.run("6 * 7").value, zygote_of(pool)._child))
    pool.close()


def test_a_forked_process_has_interpreters_of_its_own():
    with Sandbox(1) as pool:
        assert pool.run("1").value == "1"
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=_in_child, args=(pool, queue))
        process.start()
        value, child = queue.get(timeout=60)
        process.join(60)
        assert value == "42" and child != zygote_of(pool)._child and process.exitcode == 0
        assert pool.run("2").value == "2" and pool.started == 1


def test_it_is_copied_by_its_settings():
    with Sandbox(1, Limits(cpu_seconds=1), hash_seed=5) as pool:
        pool.run("1")
        with pickle.loads(pickle.dumps(pool)) as copy:
            assert (copy.workers, copy.limits, copy.hash_seed, copy.started) == (1, Limits(cpu_seconds=1), 5, 0)
            assert copy.run("7").value == "7"
