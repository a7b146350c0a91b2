"""Plant defects in good artifacts and write docs/defects.md, or count false alarms.

    python -m bench.defects [--model kokoro ...] [--seed 0] [--untimed] [--once] [--out docs/defects.md]
    python -m bench.defects --false-alarms 30 [--busy] [--small]

Artifacts to plant defects in are built by the pipeline, with its default cache, for the profile `cpu`: full size,
half an hour for each model. Good and planted ones are compared on UTTERANCES. A model's own section of the report is
replaced, the others stay. False alarms are those of good artifacts of the models by turns, each rebuilt from another
seed: full-size ones or, --small, the tests'.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.common import ROOT, say
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.models import MODELS
from jtts_export.models.source import DEMO, is_local, locate
from jtts_export.pipeline import Job, build
from jtts_export.profiles.schema import Profile, load_profile
from jtts_export.progress import Progress
from jtts_export.runtime.names import released
from jtts_export.store import default_root
from jtts_export.validate import measure
from jtts_export.validate.spread import Spread
from jtts_export.validate.subject import Subject

from . import alarms, report, small
from .catalogue import defects
from .defect import Files
from .make import judged, made
from .small import VARIANTS
from .trial import Good, attempt, joins, measured

# Of those to validate on: a speed of 1.25, and every token; of T3, every way of guidance and emotion.
UTTERANCES = {"kokoro": (1, -1), "speecht5": (1, -1), "t3": (2, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="in place of random:SEED, of one model: demo, or any with --other")
    parser.add_argument("--other", help="the other checkpoint, in place of one from SEED+1")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--once", action="store_true", help="of defects alike in both variants, those of int8 alone")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="defects with one of these in their name; other rows stay"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/defects.md")
    parser.add_argument("--untimed", action="store_true", help="make artifacts without measuring times or packaging")
    parser.add_argument("--false-alarms", type=int, metavar="N", help="validate good artifacts N times")
    parser.add_argument("--busy", action="store_true", help="beside a process on every core that never rests")
    parser.add_argument("--small", action="store_true", help="rebuild the tests' small checkpoints, seed by seed")
    options = parser.parse_args()
    if options.checkpoint not in (None, DEMO) and not options.other:
        parser.error("--checkpoint needs --other, a checkpoint with other weights in the same widths")
    if options.checkpoint == DEMO:
        options.model = ["kokoro"]
    profile = load_profile(options.profile)
    if options.false_alarms:
        _count(options, profile)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            say(f"== {name}")
            checkpoint = options.checkpoint or f"random:{options.seed}"
            other = options.other or _reseeded(checkpoint, options.seed + 1, Path(folder) / "reseeded")
            make_good = untimed if options.untimed else built
            good = make_good(name, checkpoint, other, profile, Path(folder) / name)
            trials, left_out = [], []
            for defect in defects(name, good.release, options.once):
                if any(part in defect.name for part in options.only):
                    start = time.perf_counter()
                    try:
                        trials.append(attempt(good, defect))
                    except LookupError as nowhere:  # a small network has no 4 bits, the demo's voices one style
                        left_out.append(f"{defect.name} ({defect.variant}): {nowhere}")
                        say(f"left out: {left_out[-1]}")
                        continue
                    say(f"{time.perf_counter() - start:6.1f} s {report.progress(trials[-1])}")
            say(f"{sum(trial.is_caught for trial in trials)} of {len(trials)} caught")
            lines = report.of_model(good, _shown(checkpoint), trials, left_out)
            section = f"{name}-{DEMO}" if checkpoint == DEMO else name
            if any(options.only):
                lines = report.replanted(options.out, section, lines)
            report.write(options.out, section, lines)


def _count(options: argparse.Namespace, profile: Profile) -> None:
    """Good artifacts of every model, by turns."""
    models = options.model

    def rebuilt() -> Iterator[Subject]:
        for number in range(options.false_alarms):
            round_, turn = divmod(number, len(models))
            seed = options.seed + round_
            with tempfile.TemporaryDirectory() as folder:
                yield _made(models[turn], seed, profile, options.small, Path(folder))

    found = alarms.verdicts(rebuilt(), options.busy, say)
    section = "-".join(["false-alarms", *["small"] * options.small, *["busy"] * options.busy])
    report.write(options.out, section, report.of_alarms(models, options.small, options.busy, found))


def _made(name: str, seed: int, profile: Profile, is_small: bool, folder: Path) -> Subject:
    if is_small:
        return small.subject(name, seed, folder, timed=True)
    return made(name, f"random:{seed}", VARIANTS, profile, folder, lambda _: None)


def untimed(name: str, checkpoint: str, other: str, profile: Profile, folder: Path) -> Good:
    """An artifact and what it was measured to be, but for times; no release."""
    subject = made(name, checkpoint, VARIANTS, profile, folder, say)
    brief = replace(subject, model=small.with_utterances(subject.model, UTTERANCES.get(name)))
    return judged(brief, lambda: made(name, other, VARIANTS, profile, folder / "other", say))


def built(name: str, checkpoint: str, other: str, profile: Profile, folder: Path) -> Good:
    """A release by the whole pipeline, and what it was measured to be."""
    job = Job(name, checkpoint, VARIANTS, profile, folder, default_root(), DEFAULT_OPSET)
    outcome = build(job, Progress())
    info = MODELS[name]
    model = small.with_utterances(info.load(), UTTERANCES.get(name))
    loaded = model.load(locate(checkpoint, info.files, info.companions))
    found = {
        variant: {metric: float(value) for metric, value in row["metrics"].items()}  # "inf" is a number
        for variant, row in outcome.validation["variants"].items()
    }
    spread = Spread({k: v for k, v in found["fp32"].items() if k.startswith("spread_")})
    graphs = (*model.graphs, *model.derived)
    files = {variant: released(outcome.release, graphs, variant) for variant in found}
    subject = Subject(name, model, loaded, files, outcome.release, profile, spread)

    @cache
    def made_once() -> Subject:
        say(f"making {other}")
        return made(name, other, VARIANTS, profile, folder / "other", lambda _: None)

    def of_other(variant: str) -> Files:
        return made_once().files[variant]

    expected = measure.reference(subject)
    metrics = {v: joins(subject, v) | timed | measured(subject, expected, v) for v, timed in found.items()}
    return Good(subject, expected, metrics, of_other, outcome.release)


def _reseeded(checkpoint: str, seed: int, folder: Path) -> str:
    """Another checkpoint in the same widths."""
    if checkpoint != DEMO:
        return f"random:{seed}"
    small.write_demo_sized(seed, folder)
    return str(folder)


def _shown(checkpoint: str) -> str:
    """Without the folders of this machine."""
    return f"checkpoint {Path(checkpoint).name}" if is_local(checkpoint) else checkpoint


if __name__ == "__main__":
    main()
