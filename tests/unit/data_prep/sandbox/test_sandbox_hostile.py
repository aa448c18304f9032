"""Programs that want out of the sandbox (hostile.yaml): none reaches anything, and the next program finds nothing."""

import os
import platform
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sandboxed import needs_sandbox

import data_prep.sandbox.isolation as walls
from data_prep.sandbox.pool import Limits, Outcome, Sandbox, SandboxMissingError

pytestmark = needs_sandbox
SUITE = yaml.safe_load(Path(__file__).with_name("hostile.yaml").read_text())
PROGRAMS = {program["name"]: program for program in SUITE["programs"]}
SMALL = Limits(1, 2.0, 128 << 20, 16 << 10, 1 << 20, 50, 32)  # the suite has to end, and harm little if a wall falls
PATIENT = replace(SMALL, wall_seconds=30.0)  # for a program that another limit ends, on a machine with much else to do
NEXT = "import os, json\nprint(6 * 7, os.listdir(), os.getcwd(), oct(os.umask(0o22)), json.dumps([1]))"
RIGHT = Outcome("42 [] /box 0o22 [1]\n", None, None, None, 0.0)
SECRET = "b8d1c2-canary"


class Canaries:
    """Things of the host that no program may see or change."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "kept-by-the-host.txt"
        self.file.write_text(SECRET)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.process = subprocess.Popen(["sleep", "600"])
        self.ours = {path: path.read_bytes() for path in walls.HERE.iterdir() if path.is_file()}
        assert {path.name for path in self.ours} >= {*walls.SCRIPTS, "sandbox_syscalls.txt"}

    def fill(self, code: str) -> str:
        values = {"FILE": self.file, "NAME": self.file.name, "PORT": self.listener.getsockname()[1]}
        for name, value in (values | {"PID": self.process.pid}).items():
            code = code.replace(f"CANARY_{name}", str(value))
        return SUITE["prelude"] + code.replace("OTHER_CALLS", str(other_calls()))

    def untouched(self) -> bool:
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        changed = [path for path, data in self.ours.items() if path.read_bytes() != data]
        return self.process.poll() is None and self.file.read_text() == SECRET and not changed


def other_calls() -> list[int]:
    """Numbers that the filter should refuse. 335 and 336 (uretprobe, uprobe) pass every filter by the kernel's design,
    and kill who calls them by hand.
    """
    import ctypes

    library = ctypes.CDLL("libseccomp.so.2")
    allowed = {library.seccomp_syscall_resolve_name(name.encode()) for name in walls.allowed_calls()}
    return [number for number in range(470) if number not in allowed | {335, 336}]


@pytest.fixture(scope="module")
def canaries(tmp_path_factory):
    os.environ["AMALIA_CANARY"] = SECRET
    found = Canaries(tmp_path_factory.mktemp("host"))
    yield found
    found.listener.close()
    found.process.kill()
    found.process.wait()
    del os.environ["AMALIA_CANARY"]


@pytest.fixture(scope="module")
def sandboxes():
    """One whose programs have two seconds, and one for those that the clock is not to end."""
    with Sandbox(workers=1, limits=SMALL) as short, Sandbox(workers=1, limits=PATIENT) as patient:
        assert short.run(NEXT).stdout == patient.run(NEXT).stdout == RIGHT.stdout
        yield {True: short, False: patient}


def processes_in(pool: Sandbox) -> str:
    """Children of the interpreter, when it runs no program: there is none to be."""
    zygote = pool._idle.queue[0]._child
    deadline = time.monotonic() + 5  # a supervisor may still be on its way out
    while (left := Path(f"/proc/{zygote}/task/{zygote}/children").read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def ending(outcome: Outcome) -> str:
    return outcome.limit or ("error" if outcome.error else "ok")


def test_there_are_at_least_forty():
    assert len(PROGRAMS) == len(SUITE["programs"]) >= 40


def test_what_the_suite_attacks_of_ours_is_there(sandboxes):
    """A script under another name would make those programs fail in vain, and the suite pass."""
    attacked = {name for program in PROGRAMS.values() for name in re.findall(r"sandbox_[a-z]+", program["code"])}
    assert {f"{name}.py" for name in attacked} == set(walls.SCRIPTS.values())
    paths = [f"{walls.INSIDE}/{inside}" for inside in walls.SCRIPTS.values()]
    assert (
        sandboxes[True].run(f"import os\nprint([os.path.isfile(path) for path in {paths}])").stdout == "[True, True]\n"
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_reaches_nothing(name, sandboxes, canaries):
    program = PROGRAMS[name]
    sandbox = sandboxes["time" in program["ends"]]
    if program.get("machine", platform.machine()) != platform.machine():
        pytest.skip(f"its system call numbers are {program['machine']}'s")
    outcome = sandbox.run(canaries.fill(program["code"]))
    assert "REACHED" not in outcome.stdout, outcome.stdout
    assert SECRET not in outcome.stdout + str(outcome.value) + str(outcome.error)
    assert ending(outcome) in program["ends"], outcome
    assert len(outcome.stdout) <= SMALL.output_bytes and outcome.seconds < sandbox.limits.wall_seconds + 5
    assert canaries.untouched() and not processes_in(sandbox)
    after = sandbox.run(NEXT)
    assert (after.stdout, after.value, after.error, after.limit) == (RIGHT.stdout, None, None, None)
    assert sandbox.started == 1, "the interpreter did not live on"


@pytest.mark.parametrize("name", ["files of the host", "a connection", "the environment", "local sockets"])
def test_the_suite_can_fail(name, canaries):
    """The same programs without walls, those that only look."""
    listener = canaries.listener
    code = canaries.fill(PROGRAMS[name]["code"])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "REACHED" in result.stdout or SECRET in result.stdout
    if name == "a connection":
        listener.accept()[0].close()


@pytest.mark.parametrize("call", ["clone", "socket", "unshare"])
def test_a_fallen_wall_stops_everything(call, monkeypatch):
    allowed = walls.allowed_calls()
    monkeypatch.setattr(walls, "allowed_calls", lambda: [*allowed, call])
    with Sandbox(workers=1, limits=SMALL) as pool, pytest.raises(SandboxMissingError, match="walls do not stand"):
        pool.run("print('REACHED')")
