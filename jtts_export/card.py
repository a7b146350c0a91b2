"""What a reader sees of a release: the table of results, and the model card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .models import Info
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


def render(validation: Mapping[str, Any], info: Info) -> str:
    """README.md of a release."""
    checkpoint = validation["checkpoint"]
    header, rows = table(validation)
    lines = [
        "---",
        f"license: {info.licence.lower()}",
        "pipeline_tag: text-to-speech",
        "library_name: onnx",
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
        "against PyTorch. `validation.json` holds every figure and gate, `manifest.json` every file's sha256.",
        "",
        *_packages(validation),
        "```bash",
        f"jtts-export {info.example}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _packages(validation: Mapping[str, Any]) -> list[str]:
    """What there is for CoreML."""
    made = next((variant["coreml"] for variant in validation["variants"].values() if "coreml" in variant), None)
    if made is None:
        return []
    said = f"CoreML packages, for {made['target']}: numbers checked {made['checked']}."
    return [f"{said} [How an app chains them](coreml/README.md).", ""]
