"""What a person sees while a long command runs: a live line on a terminal, plain lines elsewhere. On stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich import progress
from rich.console import Console
from rich.markup import escape


class Shows(Protocol):
    """Whoever is told how a build gets on."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """While a stage runs."""

    def step(self, text: str) -> None:
        """What the present stage is doing."""

    def cached(self, name: str) -> None:
        """A stage whose result was there already."""

    def waits(self, name: str, reason: str) -> None:
        """A stage that cannot begin yet."""


class Progress:
    """Reports stages with elapsed time, and steps within them."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        columns = progress.SpinnerColumn(), progress.TextColumn("{task.description}"), progress.TimeElapsedColumn()
        self._live = progress.Progress(*columns, console=self.console, transient=True)
        self._stage = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Show a stage while it runs, and how long it took; a failed one is shown as stopped."""
        start = time.perf_counter()
        self._stage = name
        task = self._live.add_task(name)
        outcome = "stopped"
        if self.console.is_terminal:
            self._live.start()
        try:
            yield
            outcome = "done"
        finally:
            self._live.remove_task(task)
            if self.console.is_terminal:
                self._live.stop()
            self.console.print(f"{name:<16} {outcome:<8} {time.perf_counter() - start:6.1f} s")

    def step(self, text: str) -> None:
        """What the present stage is doing."""
        if self.console.is_terminal:
            for task in self._live.task_ids:
                self._live.update(task, description=f"{self._stage}  [dim]{escape(text)}")
        else:
            self.console.print(f"  {self._stage}: {text}", markup=False)

    def cached(self, name: str) -> None:
        """A stage whose result was there already."""
        self.console.print(f"{name:<16} cached")

    def waits(self, name: str, reason: str) -> None:
        """A stage that cannot begin yet."""
        self.console.print(f"{name:<16} waits: {reason}")
