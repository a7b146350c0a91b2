"""Keeps tokens out of whatever is printed, raised or logged."""

from __future__ import annotations

import os
import re

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
HIDDEN = "***"
_LEAST = 6  # characters of what is taken for a token: a shorter one would be found in every other word
_SHAPES = (
    (re.compile(r"\bhf_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic) +[^\s'\"]+"), rf"\1 {HIDDEN}"),
    (re.compile(r"://[^/\s@'\"]+@"), f"://{HIDDEN}@"),  # of a user and a password in an address
)
_known: set[str] = set()


def keep_secret(token: str) -> None:
    """Hide this token from now on, whatever it looks like."""
    _known.add(token)


def redacted(text: str) -> str:
    """The text without tokens: those that are known, those of the environment, and what looks like one."""
    secrets = _known | {os.environ.get(name, "").strip() for name in VARIABLES}
    for secret in sorted((s for s in secrets if len(s) >= _LEAST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


def keep_log(text: str) -> str:
    """Write a log without tokens where temporary files go. Returns its name."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="jtts-export-", suffix=".log", delete=False) as log:
        log.write(redacted(text))
    return log.name
