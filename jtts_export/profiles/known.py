"""One way to say that a name is not known, and what it could be."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def check_known(what: str, name: str, known: Collection[str], whose: str = "", where: str = "") -> None:
    """Raises ValueError, as `gates.t3.all: unknown metric 'rtf_colt' of t3; did you mean 'rtf_cold'? metrics of t3:
    ...`, where `where` is `gates.t3.all` and `whose` is `of t3`."""
    if name in known:
        return
    close = get_close_matches(name, known, 1)
    meant = f"; did you mean '{close[0]}'?" if close else ";"
    start = f"{where}: " if where else ""
    of = f" {whose}" if whose else ""
    raise ValueError(f"{start}unknown {what} '{name}'{of}{meant} {what}s{of}: {', '.join(known) or 'none'}")
