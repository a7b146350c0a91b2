"""What is validated, and what is found of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jtts_export.exporters.coreml.stage import Target
from jtts_export.exporters.model import Loaded, Model
from jtts_export.profiles.schema import Gate, Profile

from .assets import client_files_equal_ratio
from .exported import NewExport
from .gates import FAIL, Interval, judge
from .parity import Metrics
from .runner import Case
from .spread import Spread

Files = Mapping[str, Path]  # graph -> file
MOST_WORDS = 300  # characters of an error


@dataclass(frozen=True)
class Packages:
    """CoreML packages: the target they are for; variant -> stage -> folder."""

    target: Target
    files: Mapping[str, Files]


@dataclass(frozen=True)
class Subject:
    """A model's checkpoint; variant -> graph -> file, fp32 among them; the files that clients need beside them, below
    a folder; the profile that they are for. name: the model's, under which the profile has its gates. sentences: a
    user's own, in place of the built-in ones."""

    name: str
    model: Model
    loaded: Loaded
    files: Mapping[str, Files]
    clients: Path
    profile: Profile
    spread: Spread
    sentences: Sequence[str] = ()
    packages: Packages | None = None
    new_export: NewExport = field(default_factory=NewExport)

    @property
    def threads(self) -> int:
        return self.profile.threads

    @cached_property
    def client_files_equal_ratio(self) -> float:
        """See assets.py; the same for every variant."""
        return client_files_equal_ratio(self.model, self.loaded, self.clients)

    def gates(self, variant: str) -> list[Gate]:
        return self.profile.gates_for(self.name, variant)

    def cases(self, purpose: str) -> Sequence[Case]:
        """Built-in utterances, or to a "validation" end the user's own."""
        config, voices = self.loaded.config, self.loaded.voices
        if self.sentences and purpose == "validation":
            return self.model.spoken(config, voices, self.sentences)
        return self.model.cases(config, voices, purpose)


@dataclass
class Findings:
    """Of one variant: metrics, intervals of some, those that others on the machine disturbed, and what stands beside
    them in validation.json. error: why it does not run, if it does not."""

    metrics: Metrics = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    disturbed: set[str] = field(default_factory=set)
    details: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @contextmanager
    def failing(self, variant: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Let what its graphs raise be its error, and go on. Not fp32's: it is the yardstick; and not what the
        machine lacks."""
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever runs a graph refuses it in its own words
            if variant == "fp32":
                raise
            self.error = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_WORDS]
            tell(f"{variant} does not run: {self.error}")

    def take(self, found: Findings) -> None:
        """Later findings replace earlier ones."""
        self.disturbed = (self.disturbed - set(found.metrics)) | found.disturbed
        self.metrics |= found.metrics
        self.intervals |= found.intervals
        self.details |= found.details

    def judged(self, gates: Sequence[Gate]) -> dict:
        """See judge(). What does not run fails, whatever was measured of it."""
        found = judge(gates, self.metrics, self.intervals, sorted(self.disturbed))
        return {**found, "verdict": FAIL, "error": self.error} if self.error else found
