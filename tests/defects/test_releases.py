"""Whatever is changed in a release after it was validated, verify() refuses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bench.defects.releases import EDITED, edited, of_release
from bench.defects.trial import Good, attempt
from jtts_export import artifact
from jtts_export.models.source import sha256_file
from jtts_export.runtime.names import stored
from jtts_export.store import files_under
from jtts_export.validate.gates import PASS

Goods = Callable[[str], Good]


def packaged(good: Good, folder: Path) -> Path:
    """A release of a good artifact, with a file of every kind; its report's say nothing."""
    subject = good.subject
    parts: dict[str, Path] = {p.relative_to(subject.clients).as_posix(): p for p in files_under(subject.clients)}
    variants: dict[str, dict] = {}
    for variant, graphs in subject.files.items():
        mine = {
            (Path(graph).parent / path.name).as_posix(): path
            for graph, main in graphs.items()
            for path in stored(main)
        }
        parts |= mine
        variants[variant] = {"files": {name: sha256_file(path) for name, path in mine.items()}}
    for name in ("report/index.html", "report/report.md", "report/junit.xml", "report/samples/0-fp32.flac"):
        parts[name] = folder / name
        parts[name].parent.mkdir(parents=True, exist_ok=True)
        parts[name].write_text(name)
    return artifact.write(folder / "out", parts, _texts(variants), _manifest(good, variants))


def _texts(variants: Mapping[str, dict]) -> dict[str, str]:
    import json

    return {artifact.VALIDATION: json.dumps({"verdict": PASS, "variants": variants}), "README.md": "A release.\n"}


def _manifest(good: Good, variants: Mapping[str, dict]) -> dict:
    return {
        "schema_version": artifact.SCHEMA_VERSION,
        "tool_version": "0",
        "model": good.subject.name,
        "checkpoint": {"source": "random:0", "revision": None, "sha256": "0"},
        "licence": "MIT",
        "opset": 17,
        "profile": good.subject.profile.model_dump(),
        "verdict": PASS,
        "variants": {variant: {"files": list(row["files"])} for variant, row in variants.items()},
        "versions": {},
        "machine": artifact.machine(),
    }


@pytest.mark.parametrize("model", ["kokoro", "speecht5", "t3"])
def test_a_change_of_any_file_is_refused(model: str, goods: Goods, tmp_path: Path) -> None:
    release = packaged(goods(model), tmp_path)
    artifact.verify(release)  # as it is, it passes
    good = replace(goods(model), release=release)
    planted = of_release(model, release)
    trials = [attempt(good, defect) for defect in planted]
    assert [trial.defect.name for trial in trials if not trial.is_caught] == []
    assert all(trial.refused.startswith("verify: ") for trial in trials)
    artifact.verify(release)  # as it was


def test_every_kind_of_file_is_edited_in_some_release(goods: Goods, tmp_path: Path) -> None:
    releases = [packaged(goods(model), tmp_path / model) for model in ("kokoro", "speecht5", "t3")]
    assert [pattern for pattern in EDITED if not any(edited(pattern, release) for release in releases)] == []
