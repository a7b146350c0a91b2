"""What a reader sees of a release: the table of results, and the model card."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .licences import front_matter, hub_licence
from .models import Info
from .snippets import Snippet, snippets
from .validate.gates import FAIL, INCONCLUSIVE, PASS

COLUMNS = (
    ("MB", "size_mb", "{:.1f}"),
    ("RTF", "rtf_warm_p50", "{:.3f}"),
    ("x PyTorch", "speedup_vs_reference", "{:.2f}"),
    ("x fp32", "speedup_vs_fp32", "{:.2f}"),
    ("decoder dB", "parity_decoder_snr_db", "{:.1f}"),
    ("mel dB", "parity_mel_snr_db", "{:.1f}"),
    ("waveform dB", "parity_waveform_snr_db", "{:.1f}"),
    ("durations =", "durations_equal_ratio", "{:.3f}"),
    ("stop =", "stop_steps_equal_ratio", "{:.2f}"),
    ("log-mel", "parity_log_mel_l1", "{:.3f}"),
    ("step RTF", "step_rtf", "{:.3f}"),
    ("KL", "parity_logits_kl", "{:.1e}"),
    ("likeliest =", "parity_logits_top1_ratio", "{:.2f}"),
)

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
ORDER = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}
VERDICTS = {PASS: "passed", FAIL: "FAILED", INCONCLUSIVE: "INCONCLUSIVE, the machine was too busy"}


def table(validation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: variant, those main figures that its model has, verdict."""
    variants = validation["variants"]
    columns = [c for c in COLUMNS if any(c[1] in v["metrics"] for v in variants.values())]
    rows = [
        [name, *(number(v["metrics"].get(key), form) for _, key, form in columns), v["verdict"]]
        for name, v in variants.items()
    ]
    return ["variant", *(title for title, _, _ in columns), "verdict"], rows


def gate_rows(validation: Mapping[str, Any]) -> list[list[str]]:
    """Every gate of every variant: failing first. variant, metric, value, limit, outcome."""
    rows = [
        (ORDER[g["outcome"]], [name, g["metric"], number(g["value"]), f"{g['op']} {g['limit']:g}", _outcome(g)])
        for name, v in validation["variants"].items()
        for g in v["gates"]
    ]
    rows += [
        (ORDER[FAIL], [name, "no gate in the profile", "", "", "FAIL"])
        for name, v in validation["variants"].items()
        if not v["gates"]
    ]
    return [row for _, row in sorted(rows, key=lambda r: r[0])]


def error_lines(validation: Mapping[str, Any]) -> list[str]:
    """Variants that do not run, and why."""
    return [f"{name} does not run: {v['error']}" for name, v in validation["variants"].items() if v.get("error")]


def layers(validation: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every variant's layers, the one that adds most error first."""
    header = ["layer", "variant", "scheme", "isolated dB", "cumulative dB", "worst channel dB", "gain error"]
    rows = [
        [
            row["layer"],
            name,
            row["scheme"],
            *(number(row[key], "{:.1f}") for key in ("isolated_snr_db", "cumulative_snr_db", "channel_snr_db")),
            number(row["gain_error"], "{:.4f}"),
        ]
        for name, v in validation["variants"].items()
        for row in sorted(v.get("layers", []), key=lambda row: float(row["isolated_snr_db"]))
    ]
    return header, rows


def scheme_lines(variant: str, made: Mapping[str, Any]) -> list[str]:
    """How many weights each scheme holds, the most frequent first; nothing of a variant that has none."""
    counts = Counter(made.get("schemes", {}).values()).most_common()
    return [f"{variant}: " + ", ".join(f"{count} {scheme}" for scheme, count in counts)] if counts else []


def ladder_lines(variant: str, made: Mapping[str, Any]) -> list[str]:
    """What the ladder promoted, and why."""
    return [
        f"{variant}: {step['gate']} was {number(step['measured'], '{:.3g}')}: promoted "
        + ", ".join(f"{w} to {s} ({step['error_share'][w]:.0%} of the error)" for w, s in step["promoted"].items())
        for step in made.get("ladder", {}).get("steps", [])
    ]


def number(value: object, form: str = "{:.4g}") -> str:
    """A metric as text; infinities are strings in JSON already, and an absent metric is said to be so."""
    if value is None:
        return "not measured"
    return form.format(value) if isinstance(value, float | int) else str(value)


def _outcome(gate: Mapping[str, Any]) -> str:
    """With what is between, where that is the reason."""
    if gate["outcome"] != INCONCLUSIVE:
        return {PASS: "pass", FAIL: "FAIL"}[gate["outcome"]]
    between = f" ({number(gate['interval'][0])} to {number(gate['interval'][1])})" if "interval" in gate else ""
    return f"inconclusive{between}"


def _public(source: str) -> str:
    """A checkpoint's source without the folders of somebody's machine, as a code span that no name can end."""
    from .report.facts import public, text

    quoted = text(public(source)).replace("`", "'")
    return f"`{quoted}`"


def languages(readme: Path | None) -> list[str]:
    """Of a checkpoint, as its authors' README has them; else English, as the official ones are."""
    said = front_matter(readme).get("language") if readme else None
    given = said if isinstance(said, list) else [said]
    found = [language for language in given if isinstance(language, str) and _LANGUAGE.fullmatch(language)]
    return list(dict.fromkeys(found)) or ["en"]


def render(
    validation: Mapping[str, Any], info: Info, licence: str, spoken: Sequence[str], files: Collection[str]
) -> str:
    """README.md of a release. licence: SPDX's expression; spoken: languages; files: of the release."""
    checkpoint = validation["checkpoint"]
    header, rows = table(validation)
    lines = [
        "---",
        _metadata(validation, info, licence, spoken),
        "---",
        "",
        f"# {info.title}, ONNX",
        "",
        f"Made by jtts-export {validation['tool_version']} from {_public(checkpoint['source'])}"
        + (f" at `{checkpoint['revision']}`" if checkpoint["revision"] else "")
        + f" (sha256 `{checkpoint['sha256'][:16]}`).",
        f"Verdict for profile `{validation['profile']['name']}`: **{validation['verdict']}**.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        f"Measured on {validation['machine']['cpu']}, {validation['profile']['threads']} threads; parity is "
        "against PyTorch. `validation.json` holds every figure and gate, `manifest.json` every file's sha256; "
        "`report/index.html` shows both, and lets you listen.",
        "",
        *_packages(validation),
        "## Use",
        "",
        "In a folder with these files (`hf download` makes one):",
        "",
        *(line for one in snippets(info, validation["variants"], files) for line in _shown(one)),
    ]
    return "\n".join(lines)


def _shown(snippet: Snippet) -> list[str]:
    return [f"{snippet.title}:", "", f"```{snippet.language}", snippet.code, "```", ""]


def _metadata(validation: Mapping[str, Any], info: Info, licence: str, spoken: Sequence[str]) -> str:
    """What the hub reads of a card, as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    variants = validation["variants"]
    source = re.split("[#@]", str(validation["checkpoint"]["source"]).removeprefix("hub:"))[0]
    base = {"base_model": source} if validation["checkpoint"]["source"].startswith("hub:") else {}
    results = [
        EvalResult(
            task_type="text-to-speech",
            dataset_type="sentences",
            dataset_name="sentences to validate on",
            metric_type=metric,
            metric_name=f"{variant}: {title}",
            metric_value=value,
        )
        for variant, measured in variants.items()
        for title, metric, _ in COLUMNS
        if isinstance(value := measured["metrics"].get(metric), float) and math.isfinite(value)
    ]
    data = ModelCardData(
        **{"language": list(spoken), **hub_licence(licence), **base},
        library_name="onnx",
        pipeline_tag="text-to-speech",
        tags=["onnx", "text-to-speech", info.name, *(variant for variant in variants if variant != "fp32")],
        model_name=f"{info.title}, ONNX",
        eval_results=results or None,
    )
    return data.to_yaml()


def _packages(validation: Mapping[str, Any]) -> list[str]:
    """What there is for CoreML."""
    made = next((variant["coreml"] for variant in validation["variants"].values() if "coreml" in variant), None)
    if made is None:
        return []
    said = f"CoreML packages, for {made['target']}: numbers checked {made['checked']}."
    return [f"{said} [How an app chains them](coreml/README.md).", ""]
