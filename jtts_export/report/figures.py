"""The plots of a release. Each function looks for its part of the validation and returns none where it is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import TYPE_CHECKING, Any

from .facts import figure, finite, number, real, text

if TYPE_CHECKING:
    from markupsafe import Markup

Styles = Mapping[str, int]
Variants = Mapping[str, Mapping[str, Any]]
WARM_CALLS = 10
WORST_LAYERS = 15


@dataclass(frozen=True)
class Figure:
    """A plot with its title. legend: names and the class of their colour; note: how to read it."""

    title: str
    picture: Markup
    legend: Sequence[tuple[str, str]]
    note: str = ""


@dataclass(frozen=True)
class Stages:
    """Where a variant's time goes: its total, its bar, and each part's name, class and time."""

    variant: str
    total: str
    picture: Markup
    parts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Layer:
    """A layer's errors as text and as a pair of bars. scheme: what holds its weights, and the graph it is in."""

    name: str
    scheme: str
    isolated: str
    cumulative: str
    picture: Markup


def rtf(variants: Variants, styles: Styles) -> list[Figure]:
    """Real-time factor by length: every call, and lines through the medians; PyTorch's beside them."""
    from .plots import Series, chart

    series = []
    reference = next((v for v in variants.values() if any(_rtf(t, "reference_seconds") for t in _timings(v))), None)
    if reference:
        series.append(("PyTorch", 0, _by_length(reference, "reference_seconds")))
    series += [(text(n, 40), styles[n], _by_length(v, "seconds")) for n, v in variants.items()]
    drawn = [(name, style, points) for name, style, points in series if points]
    if not drawn:
        return []
    lines = [Series(name, style, [(x, median(ys)) for x, ys in points], dots=False) for name, style, points in drawn]
    dots = [
        Series(name, style, [(x, y) for x, ys in points for y in ys], line=False) for name, style, points in drawn
    ]
    picture = chart([*lines, *dots], "seconds of audio", "real-time factor")
    note = "Time of a warm call over the length of its audio; below 1 is faster than speech. Lines: medians."
    return [Figure("Real-time factor by length", picture, _legend([(n, s) for n, s, _ in drawn]), note)]


def _timings(variant: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(variant.get("timings") or [])


def _rtf(timing: Mapping[str, Any], key: str) -> list[float]:
    audio_s = real(timing.get("audio_s"))
    return [s / audio_s for s in finite(timing.get(key))] if audio_s else []


def _by_length(variant: Mapping[str, Any], key: str) -> list[tuple[float, list[float]]]:
    found = [(float(t["audio_s"]), values) for t in _timings(variant) if (values := _rtf(t, key))]
    return sorted(found)


def calls(variants: Variants, styles: Styles) -> list[Figure]:
    """Time and memory of call after call on one loaded model."""
    measured = [(text(n, 40), styles[n], v["calls"]) for n, v in variants.items() if v.get("calls")]
    if not measured:
        return []
    spoken = all(_per_audio(c) is not None for _, _, c in measured)
    what = "real-time factor" if spoken else "seconds"
    # The first call pays for what later ones find: it would press the rest against the axis.
    time = _over_calls(measured, lambda c: _cost(c, spoken)[1:], "call", what, start=2)
    memory = _over_calls(measured, lambda c: finite(c.get("rss_mb")), "call", "MB", from_zero=False)
    legend = _legend([(n, s) for n, s, _ in measured])
    titled = (
        ("Time from call to call", time, f"{what.capitalize()} on one loaded model, from the second call on."),
        ("Memory from call to call", memory, "Resident memory after each call, 10^6 bytes."),
    )
    return [Figure(title, picture, legend, note) for title, picture, note in titled if picture]


def _per_audio(made: Mapping[str, Any]) -> list[float] | None:
    seconds, audio_s = finite(made.get("seconds")), finite(made.get("audio_s"))
    if len(seconds) != len(audio_s) or not all(a > 0 for a in audio_s):
        return None
    return [s / a for s, a in zip(seconds, audio_s, strict=True)]


def _cost(made: Mapping[str, Any], spoken: bool) -> list[float]:
    return (_per_audio(made) or []) if spoken else finite(made.get("seconds"))


def warm_up(variants: Variants, styles: Styles) -> list[Figure]:
    """First calls over the later ones' median: of one utterance said again and again, or else of the calls above."""
    again = any(v.get("repeated") for v in variants.values())
    part = "repeated" if again else "calls"
    measured = [(text(n, 40), styles[n], v[part]) for n, v in variants.items() if v.get(part)]
    spoken = not again and all(_per_audio(c) is not None for _, _, c in measured)
    picture = _over_calls(measured, lambda c: _relative(_cost(c, spoken)), "call", "times the median", level=1)
    said = "One utterance said again and again: time" if again else "Cost"
    note = f"{said} of the first {WARM_CALLS} calls over the median of those behind the first."
    return [Figure("Warm-up", picture, _legend([(n, s) for n, s, _ in measured]), note)] if picture else []


def _relative(costs: Sequence[float]) -> list[float]:
    steady = median(costs[1:]) if len(costs) > 1 else 0
    return [c / steady for c in costs[:WARM_CALLS]] if steady else []


def _over_calls(
    measured: Sequence[tuple[str, int, Mapping[str, Any]]],
    values: Callable[[Mapping[str, Any]], list[float]],
    x_label: str,
    y_label: str,
    start: int = 1,
    **more: Any,
) -> Markup | None:
    from .plots import Series, chart

    series = [Series(n, s, [(float(start + i), y) for i, y in enumerate(values(c))]) for n, s, c in measured]
    series = [s for s in series if len(s.points) > 1]
    return chart(series, x_label, y_label, whole_x=True, **more) if series else None


def stages(variants: Variants) -> list[Stages]:
    """Where the time of a synthesis goes."""
    from .plots import bars

    found = {}
    for name, variant in variants.items():
        parts = [(text(s.get("name", ""), 40), real(s.get("ms"))) for s in variant.get("stages") or []]
        known = [(n, ms) for n, ms in parts if ms is not None and 0 <= ms < math.inf]
        if sum(ms for _, ms in known) > 0:
            found[name] = known
    whole = max((sum(ms for _, ms in parts) for parts in found.values()), default=0)
    return [
        Stages(
            text(name, 40),
            figure("_ms", sum(ms for _, ms in parts)),
            bars(parts, whole),
            [(n, f"t{i % 6}", figure("_ms", ms)) for i, (n, ms) in enumerate(parts)],
        )
        for name, parts in found.items()
    ]


def streams(variants: Variants, styles: Styles) -> list[Figure]:
    """Chunks of stream(): what has arrived, and what playback from the first chunk on has used up."""
    return [made for name, variant in variants.items() if (made := _stream(name, variant, styles[name]))]


def _stream(name: str, variant: Mapping[str, Any], style: int) -> Figure | None:
    from .plots import Series, chart

    read = [(real(c.get("at_ms")), real(c.get("audio_s"))) for c in variant.get("stream") or []]
    chunks = [(at, audio) for at, audio in read if at is not None and audio is not None and math.isfinite(at + audio)]
    if not chunks:
        return None
    arrived = list(accumulate(audio for _, audio in chunks))
    first = chunks[0][0]
    had = [(0.0, 0.0)] + [(at / 1e3, total) for (at, _), total in zip(chunks, arrived, strict=True)]
    # Up to a little behind the last chunk: from there on nothing can run dry.
    end = 1.08 * had[-1][0] or 1.0
    had.append((end, arrived[-1]))
    played = min(end - first / 1e3, arrived[-1])
    series = [
        Series("arrived", style, had, dots=False, steps=True),
        Series("played", 0, [(first / 1e3, 0.0), (first / 1e3 + played, played)], dots=False),
    ]
    note = (
        f"{len(chunks)} chunk{'s' * (len(chunks) != 1)}, the first after {number(first)} ms. "
        "Playback would fall silent where its line meets the steps."
    )
    picture = chart(series, "seconds since the request", "seconds of audio")
    return Figure(f"stream() of {text(name, 40)}", picture, [("arrived", f"s{style}"), ("played", "s0")], note)


def layers(variant: Mapping[str, Any]) -> list[Layer]:
    """The layers that hurt most, by their error alone on fp32's inputs."""
    from .plots import pair

    rows = [r for r in variant.get("layers") or [] if real(r.get("isolated_snr_db")) is not None]
    worst = sorted(rows, key=lambda r: real(r["isolated_snr_db"]) or 0.0)[:WORST_LAYERS]
    known = [(r, real(r["isolated_snr_db"]), real(r.get("cumulative_snr_db"))) for r in worst]
    shares = [_share(db) for _, *both in known for db in both if db is not None]
    most = max(shares, default=0) or 1
    return [
        Layer(
            name=text(row.get("layer") or "", 160),
            scheme=text(" in ".join(str(row[k]) for k in ("scheme", "graph") if row.get(k)), 80),
            isolated=figure("_db", isolated),
            cumulative="" if cumulative is None else figure("_db", cumulative),
            picture=pair(
                _share(isolated or 0.0) / most,
                None if cumulative is None else _share(cumulative) / most,
                f"isolated {figure('_db', isolated)}, cumulative {figure('_db', cumulative)}",
            ),
        )
        for row, isolated, cumulative in known
    ]


def _share(snr_db: float) -> float:
    """Amplitude of the error over the signal's, 1 at most."""
    return min(1.0, 10 ** (-snr_db / 20)) if snr_db > 0 else 1.0


def probes(noise: Mapping[str, Any]) -> list[Figure]:
    """The machine's own unrest: a fixed piece of work, timed again and again."""
    from .plots import Series, chart

    times = finite(noise.get("probe_ms"))
    if len(times) < 2:
        return []
    picture = chart([Series("probe", 0, list(enumerate(times)))], "probe", "ms", whole_x=True)
    note = "A fixed piece of work, timed between the measurements: what rises here is the machine, not the model."
    return [Figure("Jitter of the machine", picture, [], note)]


def _legend(named: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name, f"s{style}") for name, style in named]
