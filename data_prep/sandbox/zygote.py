"""Inside the sandbox: the warm interpreter that forks a process for each program. Standard library only.

zygote (pid 1, never sees a program) -> supervisor (reads the request, mounts the folder, keeps the time, answers the
host) -> program (pid 1 of its own pid namespace). Only the first two are ours to trust, and the third can name neither.
In there this file is called sandbox_zygote.py and program.py sandbox_program.py (isolation.SCRIPTS).
`sandbox_zygote.py CONTROL FILTER`: CONTROL is a socket on which each message carries the socket of one execution,
FILTER holds the seccomp program. The zygote ends with the host: CONTROL is then at its end.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time

import sandbox_program
from sandbox_program import LIBC, RESULT

BOX = b"/box"
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
CHUNK = 1 << 16


def main(control: socket.socket, seccomp: bytes) -> None:
    """Forks a supervisor for each socket that comes, one after the other."""
    gc.freeze()
    while True:
        message, (*channels,), _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        supervisor = os.fork()
        if supervisor == 0:
            control.close()
            try:
                supervise(socket.socket(fileno=channels[0]), seccomp)
            finally:
                os._exit(0)
        for channel in channels:
            os.close(channel)
        os.waitpid(supervisor, 0)


def supervise(channel: socket.socket, seccomp: bytes) -> None:
    """Reads {"code", "stdin", "limits"}, runs it, answers a line of JSON and the bytes that it counts."""
    with channel.makefile("rb") as stream:
        request = json.loads(stream.read(int(stream.readline())))
    limits = request["limits"]
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWPID)
    options = f"size={limits['disk_bytes']},nr_inodes={limits['files']},mode=0700".encode()
    if LIBC.mount(b"box", BOX, b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options):
        raise OSError("the folder of the program cannot be mounted")
    os.chdir(BOX)
    stdin = os.memfd_create("stdin")
    os.write(stdin, request["stdin"].encode("utf-8", "surrogatepass"))
    os.lseek(stdin, 0, os.SEEK_SET)
    pipes = [os.pipe() for _ in range(3)]
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            for target, source in enumerate((stdin, *(write for _, write in pipes))):
                os.dup2(source, target + 100)  # first out of the way of each other
            for target in range(RESULT + 1):
                os.dup2(target + 100, target)
            os.closerange(RESULT + 1, 1 << 16)
            sandbox_program.give_up_rights(limits, seccomp)
        except BaseException as error:  # not a line of the program has run
            os.write(RESULT, json.dumps({"value": None, "error": f"the walls do not stand: {error!r}"}).encode())
            os._exit(1)
        sandbox_program.run(request["code"])
    for _, write in pipes:
        os.close(write)
    report, kept = watch(child, [read for read, _ in pipes], limits, start + limits["wall_seconds"])
    out, _, result = kept
    report |= {"seconds": round(time.monotonic() - start, 6), "stdout": len(out), "result": len(result)}
    channel.sendall(json.dumps(report).encode() + b"\n" + out + result)


def watch(child: int, pipes: list[int], limits: dict, deadline: float) -> tuple[dict, list[bytes]]:
    """({"status", "limit"}, what came out of each pipe), when the child has ended or is killed: too long, too much."""
    kept = {pipe: bytearray() for pipe in pipes}
    process, poller, limit = os.pidfd_open(child), select.poll(), None
    waiting = {process, *pipes}
    for descriptor in waiting:
        poller.register(descriptor, select.POLLIN)
    while waiting and limit is None:
        events = poller.poll(max(0, deadline - time.monotonic()) * 1000)
        if not events:
            limit = "time"
        for descriptor, _ in events:
            data = b"" if descriptor == process else os.read(descriptor, CHUNK)
            if not data:
                waiting.discard(descriptor)
                poller.unregister(descriptor)
            elif len(kept[descriptor]) + len(data) > limits["output_bytes"]:
                kept[descriptor] += data[: limits["output_bytes"] - len(kept[descriptor])]
                limit = "output"
            else:
                kept[descriptor] += data
        if time.monotonic() > deadline:
            limit = limit or "time"
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if limit is None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        # RLIMIT_CPU counts clock ticks, and beside busy neighbours more of them than the time that usage measures.
        # Nobody else kills but the kernel's OOM killer, and RLIMIT_AS stands before it.
        cpu = usage.ru_utime + usage.ru_stime
        limit = "cpu" if cpu > 0.5 * limits["cpu_seconds"] else "memory"
    return {"status": os.waitstatus_to_exitcode(status), "limit": limit}, [bytes(kept[pipe]) for pipe in pipes]


if __name__ == "__main__":
    del sys.path[0]  # ours: a program finds the standard library alone
    with open(int(sys.argv[2]), "rb") as program:
        walls = program.read()
    main(socket.socket(fileno=int(sys.argv[1])), walls)
