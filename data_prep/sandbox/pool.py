"""The sandbox in which generated code runs: a pool of warm, walled-in interpreters (issue 6, part E.8).

Each program runs in a process of its own that has nothing but a fresh, empty folder in memory: no network, no other
process to see or make, no file of the host except Python's standard library, no environment, and limits on CPU, time,
memory, output and disk. Walls: bubblewrap's namespaces, then one pid and one mount namespace a program, no
capability, rlimits, and a seccomp list of what may be called. docs/data_prep/sandbox.md.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields

from data_prep.sandbox.isolation import SandboxMissingError
from data_prep.sandbox.process import Zygote, ZygoteDiedError
from nemo_amalia.utils.errors import EnvironmentProblem

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxMissingError"]

# Run before anything else: what it can reach must be nothing, or nothing else runs.
PROBE = """
import os, socket
reached = [name for name in ("/etc", "/proc", "/sys", "/dev", "/home", "/root", "/tmp") if os.path.exists(name)]
for name, attempt in (
    ("fork", os.fork),
    ("socket", socket.socket),
    ("signal", lambda: os.kill(os.getppid(), 0)),
    ("namespace", lambda: os.unshare(os.CLONE_NEWUSER)),
    ("write", lambda: open("/probe", "w")),
):
    try:
        attempt()
        reached.append(name)
    except OSError:
        pass
" ".join(reached + list(os.environ) + os.listdir())
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use.

    cpu_seconds: whole seconds of CPU. wall_seconds: by the clock. memory_bytes: address space. output_bytes: of stdout,
    of stderr and of the value, each. disk_bytes: of its folder, which lies in memory; files: how many. code_bytes: of
    the program and of its stdin, each. Raises EnvironmentProblem on what is not positive.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 6.0
    memory_bytes: int = 256 << 20
    output_bytes: int = 64 << 10
    disk_bytes: int = 4 << 20
    files: int = 100
    open_files: int = 32
    code_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 or (field.type == "int" and int(value) != value):
                raise EnvironmentProblem(f"sandbox limit {field.name} is {value!r}: expected a positive {field.type}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did. All but `limit` and `seconds` is the program's own word.

    stdout: as text, undecodable bytes replaced. value: the repr of a last expression (None: there was none, or it was
    None). error: "TypeError: ...", or how the process ended; None when it ran to its end. limit: what ended it: "time",
    "cpu", "memory", "output", "disk", or "sandbox" (the isolator died twice on it). seconds: by the clock.
    """

    stdout: str
    value: str | None
    error: str | None
    limit: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        """It ran to its end, without an error and within its limits."""
        return self.error is None and self.limit is None


class Sandbox:
    """A pool of `workers` isolated interpreters; `run` may be called from as many threads.

    Interpreters start when first needed, and again in a process that was forked. hash_seed: PYTHONHASHSEED; what a
    program prints in the order of a set depends on it. Raises SandboxMissingError (a ValueError) at the first run where
    the isolator is missing or its walls let the probe through, and ValueError on a program or stdin over
    limits.code_bytes.
    """

    def __init__(self, workers: int = 2, limits: Limits | None = None, hash_seed: int = 0) -> None:
        if workers < 1:
            raise EnvironmentProblem(f"the sandbox has {workers} workers: expected at least 1")
        self.workers, self.limits, self.hash_seed = workers, limits or Limits(), hash_seed
        self.started = 0  # interpreters so far: more than `workers` means that some have died
        self._lock, self._owner = threading.Lock(), 0
        self._idle: queue.Queue[Zygote | None] = queue.Queue()

    def run(self, code: str, stdin: str = "") -> Outcome:
        """Runs one program, waiting for a free interpreter."""
        for name, text in (("program", code), ("stdin", stdin)):
            if len(text.encode("utf-8", "surrogatepass")) > self.limits.code_bytes:
                raise EnvironmentProblem(
                    f"a {name} of more than {self.limits.code_bytes} bytes: shorten it or raise code_bytes"
                )
        self._prepare()
        zygote = self._idle.get()
        try:
            for _ in range(2):
                try:
                    if zygote is None:
                        zygote = _probed(self.limits, self.hash_seed)
                        self.started += 1
                    return _ask(zygote, code, stdin, self.limits)
                except ZygoteDiedError as error:
                    last = error
                    if zygote:
                        zygote.close()
                    zygote = None
            return Outcome("", None, f"the sandbox died: {last}", "sandbox", 0.0)
        finally:
            self._idle.put(zygote)

    def run_many(self, programs: Iterable[str]) -> Iterator[Outcome]:
        """The outcomes of programs, in their order, all workers busy."""
        with ThreadPoolExecutor(self.workers) as threads:
            yield from threads.map(self.run, programs)

    def close(self) -> None:
        """Ends the interpreters; the next run starts new ones."""
        with self._lock:
            if self._owner == os.getpid():
                for _ in range(self.workers):
                    zygote = self._idle.get()
                    if zygote:
                        zygote.close()
            self._owner = 0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self):
        return Sandbox, (self.workers, self.limits, self.hash_seed)

    def _prepare(self) -> None:
        """A queue of this process's own: a forked child shares its parent's sockets and must not use them."""
        with self._lock:
            if self._owner != os.getpid():
                self._idle, self._owner = queue.Queue(), os.getpid()
                for _ in range(self.workers):
                    self._idle.put(None)


def _probed(limits: Limits, hash_seed: int) -> Zygote:
    zygote = Zygote(hash_seed)
    try:
        outcome = _ask(zygote, PROBE, "", limits)
    except BaseException:
        zygote.close()
        raise
    if not outcome.ok or outcome.value != "''":
        zygote.close()
        raise SandboxMissingError(
            f"the sandbox's walls do not stand (the probe gave {outcome.value or outcome.error or outcome.limit!r}): "
            "nothing runs in it; use another machine, and report this"
        )
    return zygote


def _ask(zygote: Zygote, code: str, stdin: str, limits: Limits) -> Outcome:
    report, out, claim = zygote.execute({"code": code, "stdin": stdin, "limits": asdict(limits)})
    value, error = _claimed(claim)
    limit, status = report["limit"], report["status"]
    if limit is None and error is None and value is None and (status or not claim):
        error = f"killed by signal {-status}" if status < 0 else f"ended with status {status} before its end"
    if limit is None and error:
        limit = _limit_of(error)
    return Outcome(out.decode("utf-8", "replace"), value, error, limit, report["seconds"])


def _claimed(claim: bytes) -> tuple[str | None, str | None]:
    """(value, error) of what the program left: JSON of at most limits.output_bytes, or whatever it liked."""
    if not claim:
        return None, None
    try:
        result = json.loads(claim)
        value, error = result["value"], result["error"]
        if isinstance(value, str | None) and isinstance(error, str | None):
            return value, error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None, "the program left no readable result"


def _limit_of(error: str) -> str | None:
    if error.startswith("MemoryError"):
        return "memory"
    full = ("No space left on device", "File too large")
    return "disk" if error.startswith("OSError") and any(words in error for words in full) else None
