"""What is validated, and what is found of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jtts_export.exporters.model import Loaded, Model
from jtts_export.profiles.schema import Gate, Profile

from .assets import client_files_equal_ratio
from .gates import Interval, judge
from .parity import Metrics
from .runner import Case
from .spread import Spread

Files = Mapping[str, Path]  # graph -> file


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
    them in validation.json."""

    metrics: Metrics = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    disturbed: set[str] = field(default_factory=set)
    details: dict[str, Any] = field(default_factory=dict)

    def take(self, found: Findings) -> None:
        """Later findings replace earlier ones."""
        self.disturbed = (self.disturbed - set(found.metrics)) | found.disturbed
        self.metrics |= found.metrics
        self.intervals |= found.intervals
        self.details |= found.details

    def judged(self, gates: Sequence[Gate]) -> dict:
        """See judge()."""
        return judge(gates, self.metrics, self.intervals, sorted(self.disturbed))
