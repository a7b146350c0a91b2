"""Whether a release passed, by its figures and not by its word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jtts_export.artifact import SCHEMA_VERSION, Manifest
from jtts_export.errors import GateFailed
from jtts_export.models import MODELS
from jtts_export.profiles.gates import Gate
from jtts_export.profiles.schema import Profile, built_in, load_profile
from jtts_export.report.facts import real, text
from jtts_export.validate.gates import PASS, judge

NAMED = 3  # a message names as many, and counts the rest
MOST_WORDS = 200  # characters of an error
CHECKPOINT = ("source", "revision", "sha256")
TARGET = ("runtime", "provider", "runtime_version", "threads", "schemes")


def check_passed(manifest: Manifest, validation: Mapping[str, Any], asked: str | None) -> None:
    """Judge every variant again by its metrics and the profile's gates.

    asked: the profile that it must have been judged for; without, the built-in one of the name that it says, or else
    its own. Raises GateFailed saying what does not hold, BadInput where there is no such profile.
    """
    wanted = load_profile(asked) if asked else None
    try:
        _check(manifest, validation, wanted)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = text(repr(error), MOST_WORDS)
        raise GateFailed(f"validation.json is not of the form that is written here: {said}") from error


def _check(manifest: Manifest, validation: Mapping[str, Any], wanted: Profile | None) -> None:
    for verdict in (manifest.verdict, validation["verdict"]):
        if verdict != PASS:
            raise GateFailed(f"its verdict is {verdict!r:.40}; only a release that passed is published")
    if manifest.model not in MODELS:
        raise GateFailed(f"it is a release of {manifest.model!r:.40}, which is not known here")
    same = {
        "schema_version": (validation["schema_version"], SCHEMA_VERSION),
        "model": (validation["model"], manifest.model),
        "profile": (validation["profile"], manifest.profile),
        "checkpoint": tuple([c[key] for key in CHECKPOINT] for c in (validation["checkpoint"], manifest.checkpoint)),
    }
    for what, (found, expected) in same.items():
        if found != expected:
            raise GateFailed(f"validation.json is of another {what} than the manifest")
    variants = validation["variants"]
    made = {*manifest.variants, *manifest.coreml.get("variants", {})}
    if set(variants) != made or "fp32" not in made:
        raise GateFailed(f"validation.json judges {_names(variants)}, and the manifest has {_names(made)}")
    recorded = Profile.model_validate(manifest.profile)
    if wanted is None and recorded.name in built_in():
        wanted = load_profile(recorded.name)
    if wanted is not None:
        _check_profile(manifest.model, sorted(made), recorded, wanted)
    for name, variant in variants.items():
        _check_variant(name, variant, recorded.gates_for(manifest.model, name))


def _check_profile(model: str, variants: list[str], recorded: Profile, wanted: Profile) -> None:
    """Raises GateFailed where two profiles ask different things of these variants."""
    if recorded.name != wanted.name:
        raise GateFailed(f"it was judged for profile {recorded.name}, not for {wanted.name}")
    differing = [what for what in TARGET if getattr(recorded, what) != getattr(wanted, what)]
    for variant in variants:
        had, has = ({str(gate) for gate in p.gates_for(model, variant)} for p in (recorded, wanted))
        differing += [f"{variant} {gate}" for gate in sorted(had ^ has)]
    if differing:
        raise GateFailed(
            f"it was judged for another profile of the name {wanted.name} than is known here ({_names(differing)}); "
            "build again, or name the file by --profile"
        )


def _check_variant(name: str, variant: Mapping[str, Any], gates: list[Gate]) -> None:
    """Raises GateFailed where a variant does not pass by its own figures, or its rows are not these gates'."""
    if variant.get("error"):
        raise GateFailed(f"{name} does not run")
    metrics = {metric: real(value) for metric, value in variant["metrics"].items()}
    intervals = {row["metric"]: _ends(row["interval"]) for row in variant["gates"] if "interval" in row}
    judged = judge(gates, {m: value for m, value in metrics.items() if value is not None}, intervals)
    said = [(row["metric"], row["op"], real(row["limit"]), real(row["value"])) for row in variant["gates"]]
    found = [(row["metric"], row["op"], row["limit"], row["value"]) for row in judged["gates"]]
    if said != found:
        odd = sorted({row[0] for row in {*said} ^ {*found}}) or ["their order"]
        raise GateFailed(f"the gates of {name} in validation.json are not those of its profile: {_names(odd)}")
    failing = [f"{gate} (measured {metrics.get(gate.metric)})" for gate in gates if not _holds(gate, judged)]
    if failing or judged["verdict"] != PASS:
        raise GateFailed(f"{name} does not pass: {_names(failing) or 'no gate in the profile'}")
    open_ = [row["metric"] for row in variant["gates"] if row["outcome"] != PASS or row["passed"] is not True]
    if open_ or variant["verdict"] != PASS:
        raise GateFailed(f"{name} was not judged to pass: {_names(open_ or [variant['verdict']])}")


def _ends(interval: list[Any]) -> tuple[float, float]:
    low, high = map(float, interval)
    return low, high


def _holds(gate: Gate, judged: Mapping[str, Any]) -> bool:
    return all(row["passed"] for row in judged["gates"] if row["metric"] == gate.metric)


def _names(found: Any) -> str:
    names = [text(name) for name in (found if isinstance(found, list) else sorted(map(str, found)))]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
