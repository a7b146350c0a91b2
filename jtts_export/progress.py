"""What a person sees while a long command runs: a live line on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Reports stages with elapsed time, and steps within them."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._stage = ""
        self._status = None if not self.console.is_terminal else self.console.status("")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a stage while it runs, and how long it took; a failed one is shown as stopped."""
        start = time.perf_counter()
        self._stage = name
        self.step("")
        if self._status:
            self._status.start()
        outcome = "stopped"
        try:
            yield
            outcome = "done"
        finally:
            if self._status:
                self._status.stop()
            self.console.print(f"{name:<16} {outcome:<8} {time.perf_counter() - start:6.1f} s")

    def step(self, text: str) -> None:
        """What the present stage is doing."""
        if self._status:
            self._status.update(f"{self._stage}  [dim]{text}")
        elif text:
            self.console.print(f"  {self._stage}: {text}")

    def cached(self, name: str) -> None:
        """A stage whose result was there already."""
        self.console.print(f"{name:<16} cached")
