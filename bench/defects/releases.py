"""What can happen to a release after it was validated: verify() must see each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jtts_export.artifact import MANIFEST, VALIDATION

from .defect import Defect, Planting, linked
from .graph_file import rewrite

# Where a byte is changed: the first file of each pattern that a release has.
EDITED = (
    "onnx/*.onnx",
    "onnx/*.onnx_data",
    "vocoder/onnx/*.onnx",
    "voices/*",
    "speakers/*",
    "clients/*/*",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "report/*.html",
    "report/*.xml",
    "report/*.md",
    "report/*/*.flac",
    VALIDATION,
    MANIFEST,
)


def edited(pattern: str, release: Path) -> Path | None:
    return next((path for path in sorted(release.glob(pattern)) if path.is_file()), None)


def _edit(pattern: str) -> Callable[[Path], None]:
    def plant(release: Path) -> None:
        path = edited(pattern, release)
        assert path is not None
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        rewrite(path, bytes(data))

    return plant


def _extra(release: Path) -> None:
    """Listed nowhere."""
    graph = edited("onnx/*.onnx", release)
    assert graph is not None
    linked(graph, graph.with_name("extra.onnx"))


def _missing(release: Path) -> None:
    graph = edited("onnx/*.onnx", release)
    assert graph is not None
    graph.unlink()


def _renamed(release: Path) -> None:
    """Two variants of one graph, each under the other's name."""
    first, second = sorted(release.glob("onnx/*.onnx"), key=lambda p: (len(p.name), p.name))[:2]
    a, b = first.read_bytes(), second.read_bytes()
    rewrite(first, b)
    rewrite(second, a)


def _cut(release: Path) -> None:
    path = edited("onnx/*.onnx_data", release) or edited("onnx/*.onnx", release)
    assert path is not None
    rewrite(path, path.read_bytes()[:-1])


def of_release(model: str, release: Path) -> list[Defect]:
    """Those that this release has files for."""
    wrong = [
        (f"one bit of {pattern}", "edited after validation", _edit(pattern))
        for pattern in EDITED
        if edited(pattern, release)
    ]
    wrong += [
        ("a graph that nobody measured", "onnx/extra.onnx", _extra),
        ("a graph that is missing", "of fp32", _missing),
        ("graphs exchanged", "each under the other's name", _renamed),
        ("a file cut short", "by its last byte", _cut),
    ]
    return [
        Defect(name, model, "release", what, _on_release(damage), of_release=True) for name, what, damage in wrong
    ]


def _on_release(damage: Callable[[Path], None]) -> Callable[[Planting], None]:
    def plant(planting: Planting) -> None:
        assert planting.release is not None
        damage(planting.release)

    return plant
