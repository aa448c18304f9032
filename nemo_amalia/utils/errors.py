"""Errors that a user can fix: what was seen, what was expected, what to do.

The command lines print these as a single line and end with exit code 2; a batch script does not requeue them
(docs/cluster.md, "Exit codes"). Anything else is a fault of ours or of a library: it shows its traceback, or names the
file that has it (ReportedError), and ends with exit code 1. None of these is a ValueError, so that a library's error is
never taken for the user's.
"""

from __future__ import annotations

#: exit codes of every command and of every rank (docs/cluster.md, "Exit codes")
FAILED = 1  # a fault of ours, a library or the machine: worth another start
USER_ERROR = 2  # a UserError: the same command would end the same way, so a batch script does not requeue it
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: a signal; the checkpoint is saved, the same command resumes
PEER_LOST = 76  # ended because another rank had: a batch script looks for that one, and excludes its node
INTERRUPTED = 130  # Ctrl-C


class UserError(Exception):
    """An error that a user can fix."""


class ConfigError(UserError):
    """A setting or an argument that cannot work."""


class DataError(UserError):
    """Samples, shards, indexes or other input files that are missing, corrupt, or not what was asked for."""


class CheckpointError(UserError):
    """A checkpoint, or a Hugging Face folder, that is missing, incomplete, or of something else."""


class EnvironmentProblem(UserError):
    """The machine: a missing program or package, a full disk, a folder that may not be written, a silent server."""


class ReportedError(RuntimeError):
    """A failure whose traceback is kept in a file that it names: the command prints one line, with exit code 1."""
