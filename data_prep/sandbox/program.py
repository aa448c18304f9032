"""Inside the sandbox: gives up every right, then runs one program. Standard library only; never imported outside.

The process that comes here has its own pid and mount namespace and four descriptors: 0 stdin, 1 stdout, 2 stderr and
3, on which it leaves {"value", "error"} as JSON. All that it says is the program's word: the host believes none of it.
"""

import ast
import atexit
import ctypes
import json
import os
import resource
import signal
import sys
import types

RESULT = 3
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 4, 22, 38, 2
CAPABILITY_VERSION_3 = 0x20080522
LIBC = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def give_up_rights(limits: dict, seccomp: bytes) -> None:
    """Drops the capabilities, sets the rlimits and, last, the filter. Raises OSError when any of it fails."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _call(LIBC.capset, header, (ctypes.c_uint32 * 6)())
    for name, value in {
        "AS": limits["memory_bytes"],
        "CPU": limits["cpu_seconds"],
        "FSIZE": limits["disk_bytes"],
        "NOFILE": limits["open_files"],
        "STACK": 8 << 20,
        **dict.fromkeys(("CORE", "NPROC", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "RTPRIO", "NICE"), 0),
    }.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    _call(LIBC.prctl, PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # its supervisor does not outlive it, either
    _call(LIBC.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)  # a core handler of the host would not ask RLIMIT_CORE
    _call(LIBC.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = _Filter(len(seccomp) // 8, seccomp)
    _call(LIBC.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def _call(function, *arguments) -> None:
    if function(*arguments):
        raise OSError(ctypes.get_errno(), f"{function.__name__}{arguments[:1]} failed")


def run(code: str, write=os.write, dumps=json.dumps, leave=os._exit) -> None:
    """Runs code as __main__, leaves the repr of a last expression or the error on RESULT, and ends the process.

    The defaults hold what is needed at the end: a program may replace any name of any module.
    """
    result = {"value": None, "error": None}
    module = types.ModuleType("__main__")
    module.__builtins__ = __builtins__
    sys.modules["__main__"] = module
    sys.argv[:] = ["program.py"]
    os.environ.clear()
    stdout = sys.stdout
    try:
        result["value"] = _execute(code, module.__dict__)
    except SystemExit as stop:
        result["error"] = None if stop.code in (None, 0) else f"SystemExit: {stop.code}"
    except BaseException as error:
        result["error"] = _words(error)
    try:
        atexit._run_exitfuncs()
        stdout.flush()
    except BaseException as error:
        result["error"] = result["error"] or _words(error)
    data = dumps(result).encode()
    while data:
        data = data[write(RESULT, data) :]
    leave(0)


def _execute(code: str, namespace: dict) -> str | None:
    tree = ast.parse(code, "program.py")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "program.py", "exec"), namespace)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "program.py", "eval"), namespace)
    return None if value is None else repr(value)


def _words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:
        text = ""
    return f"{name}: {text}" if text else name
