"""Errors a user can act on: one line on stderr, no traceback, and an exit code that says whose turn it is."""

from __future__ import annotations


class JttsError(Exception):
    """Base of every error that is reported as one line. `exit_code` is the process's exit code."""

    exit_code = 1

    @property
    def line(self) -> str:
        """The message, on one line."""
        return " ".join(str(self).split())


class BadInput(JttsError):
    """The request itself cannot be served: an unknown voice, an empty text, a speed of zero."""

    exit_code = 2


class GateFailed(JttsError):
    """An artifact was measured and did not pass, or its bytes are not those that were measured."""

    exit_code = 3


class OutsideError(JttsError):
    """The world outside failed: no such checkpoint, a truncated file, an unreachable hub, a full disk."""

    exit_code = 4


class CheckpointError(OutsideError):
    """A checkpoint is missing, damaged, or of another architecture. Names the file or the key."""


def first_line(error: BaseException) -> str:
    """An error's first line, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def bug_line(error: BaseException) -> str:
    """What is said of an exception that nobody expected."""
    return f"a bug: {type(error).__name__}: {first_line(error)}"
