"""How long trouble with the hub may last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from jtts_export.errors import OutsideError
from jtts_export.redact import redacted

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
MOST_TRIES = 12  # of one thing: an upload that always ends in the same place does not get better
SLOWEST_BYTES_S = 20_000  # a transfer that is slower is taken for one that has stopped

T = TypeVar("T")


class Trouble(Exception):
    """What may pass: the hub is busy, or a connection broke. wait_s: how long the hub asks to be left alone."""

    def __init__(self, said: str, wait_s: float | None = None) -> None:
        super().__init__(redacted(said))
        self.wait_s = wait_s


class Patience:
    """Time that may be lost to trouble, in pauses and in requests that came to nothing, all together. Time in which
    bytes move is not lost.

    sleep, clock: for tests.
    """

    def __init__(
        self,
        limit_s: float,
        tell: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s, self.tell, self.sleep, self.clock = limit_s, tell, sleep, clock
        self.lost_s, self.ended = 0.0, False
        self._moved_at = self._counted_to = clock()  # by whichever thread
        self._lock = threading.Lock()

    def end(self) -> None:
        """Let what is on its way in other threads break off, and nothing be tried again."""
        self.ended = True

    def moved(self) -> None:
        """Bytes went over the line."""
        self._moved_at = self.clock()

    def pace(self, size: int) -> Callable[[], None]:
        """To be called while `size` bytes are on their way. Raises Trouble where they take too long."""
        end = self.clock() + self.limit_s + size / SLOWEST_BYTES_S

        def check() -> None:
            self.moved()
            if self.ended:
                raise OutsideError("broken off")
            if self._moved_at > end:
                raise Trouble(f"{size / 1e6:.1f} MB take too long")

        return check

    def run(self, what: str, once: Callable[[], T]) -> T:
        """What `once()` returns, tried again while it raises Trouble. Raises OutsideError when patience ends."""
        tries = 0
        while True:
            started = self.clock()
            try:
                return once()
            except Exception as error:
                trouble = within(error, Trouble)
                if trouble is None:
                    raise
            tries += 1
            self.wait(what, trouble, tries, started)

    def wait(self, what: str, trouble: Trouble, tries: int, started: float) -> None:
        """Pause behind the `tries`th failure in a row, of what began at `started`. Raises OutsideError when patience
        would end meanwhile."""
        pause = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S) if trouble.wait_s is None else trouble.wait_s
        with self._lock:
            now = self.clock()
            self._lose(max(started, self._moved_at), now)
            if self.ended or self.lost_s + pause > self.limit_s or tries >= MOST_TRIES:
                asked = f"; the hub asks to come back in {pause:.0f} s" if trouble.wait_s else ""
                tried = f"{tries} tries" if tries > 1 else "1 try"
                raise OutsideError(f"{what}: {trouble}; gave up after {tried}{asked}") from None
            self._lose(now, now + pause)
        self.tell(f"{what}: {trouble}; once more in {pause:.0f} s")
        self.sleep(pause)

    def _lose(self, start: float, end: float) -> None:
        """Time that other threads have lost as well is lost once."""
        self.lost_s += max(0.0, end - max(start, self._counted_to))
        self._counted_to = max(self._counted_to, end)


def within(error: BaseException, kind: type[T]) -> T | None:
    """The error of a kind among what an error was raised from, itself included."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found
