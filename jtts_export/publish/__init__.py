"""A release that passed, to the Hugging Face Hub: one commit of the very bytes that were measured, or none."""

from __future__ import annotations

from .run import Published, publish

__all__ = ["Published", "publish"]
