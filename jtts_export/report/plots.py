"""Plots as inline SVG. Colours are classes of the page's style, so that they follow its light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 200  # near a phone's width, so that text is read as it is
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 36
_MOST_POINTS = 240  # of a series


@dataclass(frozen=True)
class Series:
    """Points in order of x. style: number of its colour, 0 the reference's. line, dots: how it is drawn."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]
    line: bool = True
    dots: bool = True
    steps: bool = False


def tag(name: str, *inside: object, **attributes: object) -> Markup:
    """An element of this name; whatever is not Markup is escaped. `class_` is class, `text_anchor` text-anchor."""
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, pairs, Markup("").join(map(escape, inside)))


def chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    level: float | None = None,
    from_zero: bool = True,
    whole_x: bool = False,
) -> Markup:
    """Series over a common pair of axes. level: a y to draw a line at; whole_x: x counts things."""
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points] + ([level] if level is not None else [])
    x_ticks = _ticks(min(0.0, *xs) if from_zero and not whole_x else min(xs), max(xs), whole_x)
    y_ticks = _ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    low_x, high_x = min(xs) if whole_x else min(x_ticks[0], min(xs)), max(max(xs), x_ticks[0] + 1e-9)
    low_y, high_y = y_ticks[0], max(y_ticks[-1], max(ys))

    def across(x: float) -> float:
        return _LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return HEIGHT - _BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - _BOTTOM - _TOP)

    parts: list[Markup] = []
    for y in y_ticks:
        parts.append(tag("path", class_="grid", d=f"M{_LEFT} {down(y):.1f}H{WIDTH - _RIGHT}"))
        parts.append(tag("text", _tick(y), class_="end", x=_LEFT - 5, y=down(y) + 4))
    parts += [
        tag("text", _tick(x), class_="middle", x=across(x), y=HEIGHT - _BOTTOM + 16)
        for x in x_ticks
        if low_x <= x <= high_x
    ]
    parts.append(tag("text", x_label, class_="end label", x=WIDTH - _RIGHT, y=HEIGHT - 4))
    parts.append(tag("path", class_="axis", d=f"M{_LEFT} {HEIGHT - _BOTTOM}H{WIDTH - _RIGHT}"))
    if level is not None:
        parts.append(tag("path", class_="level", d=f"M{_LEFT} {down(level):.1f}H{WIDTH - _RIGHT}"))
    for s in series:
        points = [(across(x), down(y)) for x, y in _thin(s.points)]
        if s.line and len(points) > 1:
            parts.append(tag("path", class_=f"line s{s.style}", d=_path(points, s.steps)))
        if s.dots:
            parts += [_dot(x, y, s.style) for x, y in points]
    label = f"{y_label} over {x_label}: {', '.join(s.name for s in series)}"
    return _svg(Markup("").join(parts), WIDTH, HEIGHT, label)


def bars(parts: Sequence[tuple[str, float]], whole: float) -> Markup:
    """One bar of parts, side by side, each in a colour of its own; `whole` is the width of the page."""
    drawn, start = [], 0.0
    for i, (_, value) in enumerate(parts):
        share = 100 * value / whole
        drawn.append(tag("rect", class_=f"t{i % 6}", x=f"{start:.3f}%", y=0, width=f"{share:.3f}%", height=18))
        start += share
    label = ", ".join(f"{name} {value:.3g}" for name, value in parts)
    return tag("svg", *drawn, class_="bar", width="100%", height=18, role="img", aria_label=label)


def pair(first: float, second: float | None, label: str) -> Markup:
    """Two bars, one under the other, shares of the width from 0 to 1."""
    drawn = [tag("rect", class_="t0", x=0, y=1, width=f"{100 * first:.2f}%", height=6)]
    if second is not None:
        drawn.append(tag("rect", class_="t1", x=0, y=9, width=f"{100 * second:.2f}%", height=4))
    return tag("svg", *drawn, class_="bar", width="100%", height=14, role="img", aria_label=label)


def strip(value: float, limit: float, interval: tuple[float, float] | None, outcome: str) -> Markup | None:
    """Where a value lies about its limit, with its interval; None where one of them is not finite."""
    ends = [value, limit, *(interval or ())]
    if not all(map(math.isfinite, ends)):
        return None
    low, high = min(ends), max(ends)
    room = 0.15 * ((high - low) or abs(limit) or 1)
    low, high = low - room, high + room

    def across(x: float) -> float:
        return 2 + 96 * (x - low) / (high - low)

    drawn = [tag("path", class_="axis", d="M0 8H100")]
    drawn.append(tag("path", class_="limit", d=f"M{across(limit):.1f} 1V15"))
    if interval:
        a, b = map(across, interval)
        drawn.append(tag("path", class_=f"interval {outcome}", d=f"M{a:.1f} 8H{b:.1f}M{a:.1f} 5V11M{b:.1f} 5V11"))
    drawn.append(tag("circle", class_=f"dot {outcome}", cx=across(value), cy=8, r=3.5))
    return tag("svg", *drawn, class_="strip", viewBox="0 0 100 16", width=100, height=16, aria_hidden="true")


def spectrogram(picture: str, seconds: float, ticks: Sequence[tuple[str, float]], label: str) -> Markup:
    """A picture of `seconds` with its times and kHz. ticks: kHz as text, and how far up it lies, 0 to 1."""
    left, width, height = 24, WIDTH - 28, 92
    parts = [
        tag("image", href=picture, x=left, y=4, width=width, height=height, preserveAspectRatio="none"),
        *(
            tag("text", khz, class_="end", x=left - 4, y=4 + height * (1 - up) + 4)
            for khz, up in (*ticks[::-1][::2],)
        ),
        tag("text", "kHz", class_="end label", x=left - 4, y=13 + height + 6),
    ]
    times = _ticks(0, seconds)
    for second in (t for t in times if t <= seconds):
        name = f"{_tick(second)} s" if second == times[0] else _tick(second)
        x = left + width * second / seconds
        at = "start" if second == 0 else "end" if x > WIDTH - 14 else "middle"
        parts.append(tag("text", name, class_=at, x=min(x, left + width), y=4 + height + 15))
    return _svg(Markup("").join(parts), WIDTH, height + 24, label)


def outline(path: str, columns: int, label: str) -> Markup:
    """A waveform, drawn as wide as the picture above it."""
    drawn = tag("path", class_="wave", d=path)
    inner = tag(
        "svg", drawn, x=24, y=0, width=WIDTH - 28, height=36, viewBox=f"0 0 {columns} 40", preserveAspectRatio="none"
    )
    return _svg(inner, WIDTH, 36, label)


def _svg(inside: Markup, width: int, height: int, label: str) -> Markup:
    return tag("svg", inside, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _path(points: Sequence[tuple[float, float]], steps: bool) -> str:
    (x0, y0), *rest = points
    return f"M{x0:.1f} {y0:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}" for x, y in rest)


def _dot(x: float, y: float, style: int) -> Markup:
    """A circle, square, diamond or triangle: colour is not all that tells series apart."""
    kind = style % 4
    if kind == 1:
        return tag("circle", class_=f"dot s{style}", cx=x, cy=y, r=3)
    shape = {
        2: "m-2.7 -2.7h5.4v5.4h-5.4z",
        3: "m0 -3.8l3.8 3.8l-3.8 3.8l-3.8 -3.8z",
        0: "m0 -3.5l3.5 6h-7z",
    }[kind]
    return tag("path", class_=f"dot s{style}", d=f"M{x:.1f} {y:.1f}{shape}")


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    return points[:: -(-len(points) // _MOST_POINTS)] if points else points


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four or so round numbers from `low` to beyond `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= raw * 0.999)
    step = max(1.0, float(round(step))) if whole else step
    first = math.floor(low / step + 1e-9)
    count = math.ceil((high - first * step) / step - 1e-9)
    return [(first + i) * step for i in range(max(count, 1) + 1)]


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _short(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value
