"""The walls of the sandbox, as seen from outside: bubblewrap's arguments and the seccomp program (issue 6, E.8).

bubblewrap (Debian package `bubblewrap`) gives the namespaces and an almost empty file system; libseccomp
(`libseccomp2`) turns the list of allowed system calls, sandbox_syscalls.txt, into the program that the kernel checks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from nemo_amalia.utils.errors import EnvironmentProblem

HERE = Path(__file__).parent
# The folder that a program finds itself in; our two files that run in there; the interpreter.
BOX, INSIDE, PYTHON = "/box", "/sandbox", "/python"
# Our files beside this one, and what they are called in there, where they import each other by that name: one that no
# generated program imports by chance.
SCRIPTS = {"zygote.py": "sandbox_zygote.py", "program.py": "sandbox_program.py"}
NOBODY = "65534"
INSTALL = "generated code runs nowhere else: install it (Debian, Ubuntu: apt-get install bubblewrap libseccomp2)"
ALLOW, DENY = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(0)


class SandboxMissingError(EnvironmentProblem):
    """The isolator is not there or does not work, so that nothing may run."""


def seccomp_program() -> int:
    """A file descriptor (memfd) holding the BPF program; the caller closes it.

    Allowed are the calls of sandbox_syscalls.txt; ioctl answers ENOTTY (Python asks whether a file is a terminal),
    clone3 ENOSYS (glibc then asks clone), all others EPERM; another architecture's calls kill.
    Raises SandboxMissingError where libseccomp is not installed.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise SandboxMissingError(f"the sandbox needs libseccomp.so.2 ({error}): {INSTALL}") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(DENY | errno.EPERM)
    rules = [(name, ALLOW) for name in allowed_calls()]
    rules += [("ioctl", DENY | errno.ENOTTY), ("clone3", DENY | errno.ENOSYS)]
    target = os.memfd_create("seccomp")
    try:
        for name, action in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                raise EnvironmentProblem(
                    f"sandbox_syscalls.txt names {name!r}, which libseccomp does not know: correct it"
                )
            if number >= 0 and library.seccomp_rule_add(context, action, number, 0):
                raise RuntimeError(f"libseccomp refused a rule for {name}")
        if library.seccomp_export_bpf(context, target):
            raise RuntimeError("libseccomp could not write its program")
        os.lseek(target, 0, os.SEEK_SET)
    except BaseException:
        os.close(target)
        raise
    finally:
        library.seccomp_release(context)
    return target


def allowed_calls() -> list[str]:
    """The names in sandbox_syscalls.txt."""
    lines = (HERE / "sandbox_syscalls.txt").read_text().splitlines()
    return [name for line in lines if not line.startswith("#") for name in line.split()]


def bwrap_command(arguments: list[str], info: int, hash_seed: int) -> list[str]:
    """bubblewrap's command line around `python zygote.py ARGUMENTS`. info: descriptor for its child's pid.

    Inside: new user, pid, net, ipc, uts and cgroup namespaces; uid 65534; no variables of the host; and of
    files the interpreter, its standard library without site-packages and the C libraries, read-only. No /proc, /dev,
    /etc, /tmp or /sys. CAP_SYS_ADMIN is over the new user namespace alone: the zygote mounts each program's folder with
    it, and a program has lost it before its first line.
    Raises SandboxMissingError where bubblewrap is not installed.
    """
    if sys.platform != "linux":
        raise SandboxMissingError(f"the sandbox needs Linux's namespaces and this is {sys.platform}: run it on Linux")
    program = shutil.which("bwrap")
    if not program:
        raise SandboxMissingError(f"the sandbox needs bubblewrap and there is no bwrap on PATH: {INSTALL}")
    command = [program, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox", "--new-session"]
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--as-pid-1", "--info-fd", str(info)]
    command += ["--clearenv", "--setenv", "PYTHONHASHSEED", str(hash_seed)]
    command += ["--setenv", "LD_LIBRARY_PATH", f"{PYTHON}/lib"]
    command += [*_libraries(), *_interpreter(), "--dir", BOX]
    for name, inside in SCRIPTS.items():
        command += ["--ro-bind", str(HERE / name), f"{INSIDE}/{inside}"]
    command += ["--remount-ro", "/", "--chdir", BOX]
    python = [f"{PYTHON}/bin/python", "-s", "-B", "-X", "utf8"]
    return [*command, "--", *python, f"{INSIDE}/{SCRIPTS['zygote.py']}", *arguments]


def _interpreter() -> list[str]:
    """This interpreter under /python, whatever its folder outside is called (a user's name may be in it)."""
    executable = os.path.realpath(sys.executable)  # a virtual environment's is only a link to it
    stdlib, inside = sysconfig.get_path("stdlib"), f"{PYTHON}/lib/python{sysconfig.get_python_version()}"
    binds = ["--ro-bind", executable, f"{PYTHON}/bin/python", "--ro-bind", stdlib, inside]
    for path in sorted(Path(sys.base_prefix, "lib").glob("libpython*.so*")):
        binds += ["--ro-bind", str(path), f"{PYTHON}/lib/{path.name}"]
    if Path(stdlib, "site-packages").is_dir():
        binds += ["--tmpfs", f"{inside}/site-packages", "--remount-ro", f"{inside}/site-packages"]
    return binds


def _libraries() -> list[str]:
    """Where the loader looks for C libraries; /lib may be a link into /usr or a folder of its own."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or "none"
    binds = []
    for folder in (f"/usr/lib/{multiarch}", "/usr/lib64"):
        binds += ["--ro-bind-try", folder, folder]
    for name in ("lib", "lib64"):
        if os.path.islink(f"/{name}"):
            binds += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        else:
            folder = f"/lib/{multiarch}" if name == "lib" else "/lib64"
            binds += ["--ro-bind-try", folder, folder]
    return binds
