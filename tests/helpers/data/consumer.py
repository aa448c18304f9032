"""A training run as the data path sees it: takes batches, notes a digest of each, saves its position now and then."""

import gc
import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch

SAVE_EVERY = 5  # batches
PACE = 0.03  # seconds a batch: workers get ahead of it, as they do of a training step


def digest(batch) -> str:
    """Of every tensor, its type and shape, and of the keys."""
    found = hashlib.sha256()
    for name, value in sorted(batch.to_dict().items()):
        if isinstance(value, torch.Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(value.contiguous().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        else:
            found.update(f"{name} {value!r}".encode())
    return found.hexdigest()


def consume(build, folder: Path, number: int, hold: int | None) -> None:
    """Goes on at folder/state.pt until `number` batches were given in all; a line `number digest` in folder/given.

    hold: after so many batches of this life it waits, to be killed there however late it is seen.
    """
    os.setsid()  # so that it can be killed with its workers, and they can be found
    torch.set_num_threads(1)
    loader, first, position = build(), 0, folder / "state.pt"
    if position.exists():
        saved = torch.load(position, weights_only=False)
        loader.restore(saved["state"])
        first = saved["given"]
    given = os.open(folder / "given", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for index in range(first, number):
        os.write(given, f"{index} {digest(next(loader))}\n".encode())
        if index + 1 - first == hold:
            time.sleep(600)
        time.sleep(PACE)
        if (index + 1) % SAVE_EVERY == 0:
            torch.save({"given": index + 1, "state": loader.state()}, folder / "state.new")
            os.replace(folder / "state.new", position)
    loader.close()


class Run:
    """Lives of a consumer in one folder, each going on where the last one saved."""

    def __init__(self, build, folder: Path, number: int) -> None:
        self.build, self.folder, self.number = build, folder, number
        self.sessions: list[int] = []
        folder.mkdir()

    def start(self, hold: int | None = None) -> None:
        self.process = multiprocessing.get_context("fork").Process(
            target=consume, args=(self.build, self.folder, self.number, hold)
        )
        gc.freeze()  # Energon collects garbage in each new worker: 3 s, with all that pytest holds
        self.process.start()
        gc.unfreeze()
        self.sessions.append(self.process.pid)

    def lines(self) -> list[list[str]]:
        """[number, digest] of every batch that was given, in the order of time."""
        file = self.folder / "given"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def saved(self) -> int:
        """Batches given before the last saved position."""
        position = self.folder / "state.pt"
        return torch.load(position, weights_only=False)["given"] if position.exists() else 0

    def kill_after(self, batches: int, seconds: float, whole_group: bool) -> int:
        """kill -9 `seconds` after the `batches`-th batch of this life; batches given since the last saved position."""
        before, deadline = len(self.lines()), time.monotonic() + 60
        while len(self.lines()) < before + batches:
            assert self.process.is_alive() and time.monotonic() < deadline, "the consumer ended before it was killed"
            time.sleep(0.002)
        time.sleep(seconds)
        if whole_group and os.getpgid(self.process.pid) == self.process.pid:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:  # the out-of-memory killer takes one; its workers must notice
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, "the consumer ended before it was killed"
        given = [int(number) for number, _ in self.lines()[before:]]
        return given[-1] + 1 - self.saved() if given else 0

    def finish(self) -> None:
        self.process.join(120)
        assert self.process.exitcode == 0

    def left_behind(self) -> list[int]:
        """Processes of any life that still run."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) in self.sessions]

    def end(self) -> None:
        """Whatever a failed test left."""
        for pid in self.left_behind():
            os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int | None:
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)  # a dead one that nobody has asked about yet
