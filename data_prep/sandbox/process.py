"""One isolated interpreter (bubblewrap around zygote.py), started, asked and ended from the host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile

from data_prep.sandbox.isolation import INSTALL, SandboxMissingError, bwrap_command, seccomp_program

GRACE = 10.0  # seconds over a program's own limit that a busy machine may take to answer
HEADER_BYTES = 1024


class ZygoteDiedError(RuntimeError):
    """The isolated interpreter is gone or does not answer; what it was asked has no answer."""


class Zygote:
    """A warm interpreter behind its walls. One caller at a time.

    It ends when `close` is called, and when this process ends in whatever way: its control socket is then at its end.
    (bubblewrap's --die-with-parent would end it with the *thread* that started it.)
    Raises SandboxMissingError, with bubblewrap's own words, when the walls do not stand.
    """

    def __init__(self, hash_seed: int = 0) -> None:
        self._control, theirs = socket.socketpair()
        information, write = os.pipe()
        descriptors = [theirs.fileno(), write]
        try:
            descriptors.append(seccomp_program())
            command = bwrap_command([str(theirs.fileno()), str(descriptors[2])], write, hash_seed)
            self._log = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, pass_fds=descriptors, env={}
            )
        except BaseException:
            self._control.close()
            os.close(information)
            raise
        finally:
            theirs.close()
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        with open(information, "rb") as stream:
            said = stream.read()  # until bubblewrap has built everything and closes it, or has ended
        if not said:
            reason = self._last_words()
            self.close()
            raise SandboxMissingError(f"bubblewrap does not start ({reason}); are user namespaces allowed? {INSTALL}")
        self._child = json.loads(said)["child-pid"]

    def execute(self, request: dict) -> tuple[dict, bytes, bytes]:
        """(report, stdout, result) of {"code", "stdin", "limits"}; result is what the program claims, unparsed.

        report: {"status", "limit", "seconds"}. Raises ZygoteDiedError.
        """
        data = json.dumps(request).encode()
        limits = request["limits"]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(limits["wall_seconds"] + GRACE)
            try:
                socket.send_fds(self._control, [b"x"], [theirs.fileno()])
                theirs.close()
                ours.sendall(b"%d\n%b" % (len(data), data))
                return _read_answer(ours, 2 * limits["output_bytes"])
            except (OSError, ValueError, KeyError) as error:
                raise ZygoteDiedError(f"no answer from the sandbox ({error!r}): {self._last_words()}") from error

    def close(self) -> None:
        """Ends the interpreter and all that runs in its pid namespace."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError, AttributeError):
            if self._process.poll() is None:  # bubblewrap waits for its child, so the number is still the child's
                os.kill(self._child, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        self._log.seek(0)
        text = self._log.read(2000).decode(errors="replace").strip()
        return text.splitlines()[-1] if text else "it said nothing"


def _read_answer(channel: socket.socket, most: int) -> tuple[dict, bytes, bytes]:
    with channel.makefile("rb") as stream:
        report = json.loads(stream.readline(HEADER_BYTES))
        lengths = report.pop("stdout"), report.pop("result")
        if sum(lengths) > most:
            raise ValueError(f"{lengths} bytes announced, at most {most} expected")
        out, result = (stream.read(length) for length in lengths)
    if len(out) + len(result) != sum(lengths):
        raise ValueError("the answer is cut off")
    return report, out, result
