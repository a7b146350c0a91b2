"""The ladder: promote the weights that add most error, step by step, until the parity gates pass.

No recipe fits every checkpoint. Where one misses a gate, each weight of the failing stage is quantized
alone and its error at the stage's output measured; those that add most move one step up (int8 to fp16
storage, then fp32), and the whole is judged again on sentences of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from jtts_export.profiles.schema import Gate
from jtts_export.runtime.taps import Graphs, PartRunner
from jtts_export.validate.parity import Metrics, Parity, Stage, compare, reference_taps
from jtts_export.validate.runner import Arrays, Case
from jtts_export.validate.spread import Spread

from .apply import quantize
from .schemes import Float32, Recipe, Rule, Scheme, label
from .static_conv import Parameters
from .weights import find_weights

AIM = 0.85  # of the noise that a failing gate allows, so that other sentences pass too
TELL_EVERY = 20  # weights
HOPELESS = 1e6  # noise over signal of an output that is not even finite
SHARE = 0.5  # of a stage's noise removed in one step, for gates that are not signal-to-noise ratios


@dataclass(frozen=True)
class Step:
    """Weights promoted to satisfy `gate`, with each one's share of the stage's error."""

    gate: str
    measured: float
    stage: str
    promoted: dict[str, str]
    error_share: dict[str, float]


@dataclass
class Climb:
    """Where the ladder ended: the recipe, the metrics it was judged by, and how it got there."""

    recipe: Recipe
    metrics: Metrics
    steps: list[Step] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)

    def as_json(self) -> dict:
        return {
            "metrics": self.metrics,
            "failing": self.failing,
            "steps": [asdict(step) for step in self.steps],
        }


@dataclass
class Ladder:
    """What is fixed while climbing: the fp32 graphs and their files, fitted convolutions, sentences to judge by, a
    brief one to measure single weights on, gates."""

    graphs: Mapping[str, ir.Model]
    files: Graphs
    convs: Mapping[str, Parameters]
    runner: Callable[[Graphs, int, bool], PartRunner]
    parity: Parity
    spread: Spread
    cases: Sequence[Case]
    brief: Case
    gates: Sequence[Gate]
    threads: int
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        exact = self.runner(self.files, self.threads, True)
        self._expected = reference_taps(self.parity, exact, self.cases)
        self._brief = reference_taps(self.parity, exact, [self.brief])[0]
        self._noise: dict[str, dict[str, float]] = {s.name: {} for s in self.parity.stages}

    def climb(self, recipe: Recipe) -> Climb:
        """Promote until every gate passes, or nothing is left that would help."""
        steps: list[Step] = []
        while True:
            metrics = self._judge(recipe)
            failing = [g for g in self.gates if not g.passes(metrics)]
            step, recipe = self._promote(failing, metrics, recipe)
            if step is None:
                return Climb(recipe, metrics, steps, [str(g) for g in failing])
            steps.append(step)
            self.tell(f"{step.gate}: {step.measured:.3g}; promoted {len(step.promoted)} weights of {step.stage}")

    def _judge(self, recipe: Recipe) -> Metrics:
        """Metrics against the fp32 graphs, whose own distance from the reference is validated elsewhere."""
        protos = {}
        for name, graph in self.graphs.items():
            model = graph.clone()
            quantize(model, recipe, self.convs)
            protos[name] = ir.to_proto(model)
        runner = self.runner(protos, self.threads, True)
        return self.spread.relate(compare(self.parity, self._expected, runner, self.cases)[0])

    def _promote(self, failing: Sequence[Gate], metrics: Metrics, recipe: Recipe) -> tuple[Step | None, Recipe]:
        for gate in failing:
            stages = [stage for stage in self.parity.stages if gate.metric in stage.gates]
            noises = [self._noise_of(stage, recipe) for stage in stages]
            # Where several stages could help, the one that adds most error.
            for noise, stage in sorted(zip(noises, stages, strict=True), key=lambda pair: -sum(pair[0].values())):
                chosen = _worst(noise, _keep(gate, metrics))
                if chosen:
                    after = recipe.with_promoted(chosen)
                    total = sum(noise.values())
                    step = Step(
                        gate=str(gate),
                        measured=metrics[gate.metric],
                        stage=stage.name,
                        promoted={n: label(after.scheme_of(n)) for n in chosen},
                        error_share={n: noise[n] / total for n in chosen},
                    )
                    for known in self._noise.values():
                        for name in chosen:
                            known.pop(name, None)  # held otherwise now: to be measured again
                    return step, after
        return None, recipe

    def _noise_of(self, stage: Stage, recipe: Recipe) -> dict[str, float]:
        """Noise power over signal power at the stage's tap, from each weight of it quantized alone."""
        known = self._noise[stage.name]
        forced = {name: self._brief[name] for name in stage.forced}
        parts = self.runner(self.files, self.threads, False).parts(self.brief.inputs, stage.tap, forced)
        homes = {weight: name for name, part in parts.items() for weight in find_weights(ir.from_proto(part))}
        missing = [weight for weight in homes if weight not in known]
        for number, weight in enumerate(missing, 1):
            if number % TELL_EVERY == 1:
                self.tell(f"error of each weight of {stage.name}, {number} of {len(missing)}")
            known[weight] = self._alone(parts, homes[weight], weight, recipe.scheme_of(weight), stage.tap, forced)
        return known

    def _alone(
        self,
        parts: Mapping[str, onnx.ModelProto],
        home: str,
        weight: str,
        scheme: Scheme,
        tap: str,
        forced: Arrays,
    ) -> float:
        if isinstance(scheme, Float32):
            return 0.0
        model = ir.from_proto(parts[home])
        quantize(model, Recipe(rules=(Rule.of_one(weight, scheme),)), self.convs)
        runner = self.runner({**parts, home: ir.to_proto(model)}, self.threads, False)
        measured = runner.taps(self.brief.inputs, [tap], forced)[tap].astype(np.float64)
        exact = self._brief[tap].astype(np.float64)
        if measured.shape != exact.shape:
            return HOPELESS
        noise = float(((measured - exact) ** 2).sum() / max((exact**2).sum(), 1e-30))
        return noise if np.isfinite(noise) else HOPELESS


def _keep(gate: Gate, metrics: Metrics) -> float:
    """The share of the present noise that may stay."""
    if gate.metric.endswith("_snr_db"):
        return AIM * min(1.0, 10 ** ((metrics[gate.metric] - gate.limit) / 10))
    return 1 - SHARE


def _worst(noise: Mapping[str, float], keep: float) -> list[str]:
    """The fewest weights, worst first, without which only `keep` of the noise remains."""
    total = remaining = sum(noise.values())
    chosen = []
    for name in sorted(noise, key=lambda n: (-noise[n], n)):
        if remaining <= keep * total or noise[name] == 0:
            break
        chosen.append(name)
        remaining -= noise[name]
    return chosen
