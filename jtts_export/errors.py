"""Errors a user can act on: one line on stderr, no traceback, and an exit code that says whose turn it is."""

from __future__ import annotations


class JttsError(Exception):
    """Base of every error that is reported as one line. `exit_code` is the process's exit code."""

    exit_code = 1


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
