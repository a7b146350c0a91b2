"""Tiny releases that passed, and a hub to publish them to."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hub.repository import Commit

from jtts_export import artifact
from jtts_export.profiles.schema import Profile
from jtts_export.publish import Published, publish
from jtts_export.publish.local import Passed
from jtts_export.publish.patience import Patience
from jtts_export.validate.gates import judge

REPO = "org/tiny"
TOKEN = "hf_" + "Sekret0123456789abcdefghijklmnopqr"
GATES = {
    "all": {"durations_equal_ratio": ">= 0.9"},
    "fp32": {"parity_decoder_snr_db": ">= 80"},
    "int8": {"parity_decoder_snr_db": ">= 20", "size_ratio_vs_fp32": "<= 0.5"},
}
METRICS = {
    "fp32": {"durations_equal_ratio": 1.0, "parity_decoder_snr_db": "inf", "size_mb": 0.1},
    "int8": {"durations_equal_ratio": 0.95, "parity_decoder_snr_db": 31.5, "size_ratio_vs_fp32": 0.25},
}
FILES = {
    "onnx/model.onnx": b"\x08fp32" * 4000,
    "onnx/model_quantized.onnx": b"\x08int8" * 900,
    "config.json": b'{"vocab": {}}\n',
    "clients/voices.npz": b"PK\x03\x04\x00voices" * 100,
    "report/index.html": b"<!doctype html>\n",
}
CARD = "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n\n# Tiny\n"
GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}


def profile(gates: Mapping[str, Mapping[str, str]] = GATES, name: str = "tiny") -> dict[str, Any]:
    content = {"name": name, "description": "small", "threads": 1, "gates": {"kokoro": gates}}
    return json.loads(Profile.model_validate(content).model_dump_json())


def validation_of(
    files: Mapping[str, bytes], judged_for: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]] = METRICS
) -> dict[str, Any]:
    """As a build would have written it, of these figures."""
    variants = {}
    for variant, measured in metrics.items():
        gates = Profile.model_validate(judged_for).gates_for("kokoro", variant)
        found = judge(gates, {metric: float(value) for metric, value in measured.items()})
        for row in found["gates"]:
            row["value"] = measured.get(row["metric"])
        hashes = {GRAPHS[variant]: hashlib.sha256(files[GRAPHS[variant]]).hexdigest()}
        variants[variant] = {**found, "metrics": dict(measured), "rows": [], "files": hashes}
    verdicts = {v["verdict"] for v in variants.values()}
    return {
        "schema_version": artifact.SCHEMA_VERSION,
        "tool_version": "0.1.0",
        "model": "kokoro",
        "checkpoint": {"source": "random:0", "revision": None, "sha256": "ab" * 32},
        "profile": judged_for,
        "machine": {"cpu": "a processor", "cores": 2},
        "verdict": "pass" if verdicts == {"pass"} else "fail",
        "variants": variants,
    }


def write(
    out: Path,
    files: Mapping[str, bytes] = FILES,
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    alter: Callable[[dict[str, Any]], object] = lambda _: None,
    card: str = CARD,
) -> Path:
    """A release of these files. change: of validation.json; alter: of the manifest, before either is sealed; card:
    README.md."""
    validation = validation_of(files, profile())
    shared = ("schema_version", "tool_version", "model", "checkpoint", "profile")
    manifest = {
        **copy.deepcopy({key: validation[key] for key in shared}),
        **{"verdict": "pass", "licence": "Apache-2.0", "opset": 17, "versions": {}, "machine": {}},
        "variants": {v: {"files": [name]} for v, name in GRAPHS.items()},
    }
    change(validation)
    alter(manifest)
    with tempfile.TemporaryDirectory() as folder:
        parts = {name: Path(folder) / f"{n}" for n, name in enumerate(files)}
        for name, path in parts.items():
            path.write_bytes(files[name])
        texts = {artifact.VALIDATION: json.dumps(validation), "README.md": card}
        return artifact.write(out, parts, texts, manifest)


class Waits:
    """Time that passes only where somebody waits. pauses: how long, each time."""

    def __init__(self) -> None:
        self.now, self.pauses, self.told = 0.0, [], []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def patience(self, limit_s: float = 600) -> Patience:
        return Patience(limit_s, self.told.append, self.sleep, lambda: self.now)


def put(release: Path, waits: Waits, limit_s: float = 600, **given: Any) -> Published:
    """publish() to REPO, one request at a time."""
    return publish(release, REPO, patience=waits.patience(limit_s), threads=1, **given)


def is_published(commit: Commit, passed: Passed) -> bool:
    """Whether a commit has every file of a release, byte for byte."""
    return all(
        name in commit.tree and commit.tree[name].read() == content.read() for name, content in passed.files.items()
    )
