"""Workers that are killed, that leave, and that hang: each is named with its pid and with what it was doing."""

import fcntl
import os
import re
import signal
import threading
import time
import traceback
from multiprocessing.queues import Queue

import pytest
from chatml import conversation

from nemo_amalia.data.encoding.encoders import ConversationEncoder
from nemo_amalia.data.faults.board import FaultBoard
from nemo_amalia.data.loading.workers import WorkerLostError, in_one_line
from nemo_amalia.data.shards.write import write_shards
from nemo_amalia.utils.errors import UserError

VICTIM = "s-00029"  # of the second worker: it reads the second half


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards((conversation(i) for i in range(40)), tmp_path_factory.mktemp("workers") / "data", 10).folder


def when_reading(monkeypatch, act):
    """The worker that reads the victim does `act` first; patched before the fork."""
    cook = ConversationEncoder.cook

    def cook_or_act(record):
        if record["__key__"].endswith(VICTIM):
            act()
        return cook(record)

    monkeypatch.setattr(ConversationEncoder, "cook", staticmethod(cook_or_act))


def lost(loader):
    """The line that ends the iteration; a signal may be noticed outside of next()."""
    started = time.monotonic()
    with pytest.raises((WorkerLostError, RuntimeError)) as info:
        while time.monotonic() - started < 50:
            next(loader)
    message = str(info.value) if info.type is WorkerLostError else loader.lost_worker()
    assert message and "\n" not in message
    return message


def pids(loader):
    return [process.pid for process in loader.workers()]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed by signal 9 \(SIGKILL\)"),
        (lambda: os._exit(3), "ended with exit code 3"),
    ],
)
def test_a_worker_that_dies_is_named_with_its_sample(load, monkeypatch, act, said):
    when_reading(monkeypatch, act)
    loader = load(num_workers=2, worker_timeout=40)
    message = lost(loader)
    number, pid = map(int, re.match(r"data worker (\d) \(pid (\d+)\)", message).groups())
    assert pids(loader)[number] == pid
    assert re.search(said + rf" while reading shard-\d+\.tar/{VICTIM}: ", message)
    assert "data.num_workers" in message


def test_kill_9_from_outside(load):
    loader = load(num_workers=2, worker_timeout=40)
    next(loader)
    pid = pids(loader)[1]
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    message = lost(loader)
    assert message.startswith(f"data worker 1 (pid {pid}) was killed by signal 9 (SIGKILL) while ")


def test_a_worker_that_hangs_is_named_and_ended(load, monkeypatch):
    when_reading(monkeypatch, lambda: time.sleep(600))
    loader = load(num_workers=2, worker_timeout=15)
    started = time.monotonic()
    message = lost(loader)
    assert time.monotonic() - started < 45
    number, pid = map(int, re.match(r"data worker (\d) \(pid (\d+)\)", message).groups())
    assert pids(loader)[number] == pid
    assert re.search(rf"gave nothing for 15 s while reading shard-\d+\.tar/{VICTIM}, and was ended", message)
    assert "data.worker_timeout" in message
    loader.workers()[number].join(10)
    assert loader.workers()[number].exitcode == -signal.SIGKILL


def test_a_checkpoint_does_not_wait_for_a_worker_that_hangs(load, monkeypatch):
    when_reading(monkeypatch, lambda: time.sleep(600))
    loader = load(num_workers=2, worker_timeout=12, prefetch_factor=8)
    next(loader)
    deadline = time.monotonic() + 20
    while VICTIM not in loader.faults.doing(0) + loader.faults.doing(1):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(WorkerLostError, match=rf"gave nothing for 12 s while reading shard-\d+\.tar/{VICTIM}"):
        loader.state()


def test_nobody_is_lost_where_nobody_is(load):
    loader = load(num_workers=2)
    assert loader.lost_worker() is None
    next(loader)
    assert loader.lost_worker() is None
    loader.close()
    assert loader.lost_worker() is None
    alone = load(num_workers=0)
    next(alone)
    assert alone.lost_worker() is None
    with pytest.raises(UserError, match="worker_timeout is 0: expected seconds, more than 0"):
        load(worker_timeout=0)


def test_a_worker_that_dies_while_it_hands_over_a_batch_is_named(load):
    """Its connection breaks before the process is seen to have ended: often, when it is killed in mid-stream."""
    for moment in (0.0, 0.01, 0.02, 0.03):
        loader = load(num_workers=2, worker_timeout=40)
        next(loader)
        threading.Timer(moment, os.kill, (pids(loader)[0], signal.SIGKILL)).start()
        assert lost(loader).startswith("data worker 0 (pid ")
        loader.close()


def test_a_broken_connection_waits_for_the_end_of_its_worker(load):
    seen = iter([None, None, "data worker 0 was killed"])
    error = in_one_line(EOFError(), FaultBoard(1), lambda timed_out: next(seen))
    assert isinstance(error, WorkerLostError) and str(error) == "data worker 0 was killed"
    other = KeyError("x")
    assert in_one_line(other, FaultBoard(1), lambda timed_out: None) is other  # at once: nothing was broken


def test_no_worker_outlives_the_process_that_started_it(load, folder):
    """It has packs to hand over and nobody who takes them: left alone it would wait for ever."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            with_narrow_pipes(Queue)
            loader = load(folder, num_workers=1)
            next(loader)
            os.write(writable, f"{pids(loader)[0]}".encode())
            time.sleep(2)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writable)
    worker = int(os.read(readable, 20))
    os.waitpid(child, 0)
    deadline = time.monotonic() + 20
    while state(worker) not in ("gone", "Z"):
        assert time.monotonic() < deadline, f"worker {worker} is still there: {state(worker)}"
        time.sleep(0.1)


def with_narrow_pipes(queue):
    """Full at once, as they are with large packs. Before the first write: a pipe that holds more refuses to shrink."""
    make = queue.__init__

    def make_narrow(self, *args, **words):
        make(self, *args, **words)
        fcntl.fcntl(self._writer.fileno(), fcntl.F_SETPIPE_SZ, 4096)

    queue.__init__ = make_narrow


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"
