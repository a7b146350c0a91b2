"""CoreML packages of full-size seeded checkpoints: time and memory to convert, sizes, and how close each stage is.

python -m bench.coreml MODEL RESULT.json     what one model's process does
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import PROFILE, peak_mb, say, table
from jtts_export.exporters.coreml.build import INTERFACE, SCHEMES, packages
from jtts_export.exporters.coreml.stage import DEFAULT_TARGET
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.runtime.names import COREML, COREML_INT8
from jtts_export.stages import Stages
from jtts_export.validate import coreml
from jtts_export.validate.measure import spread_of
from jtts_export.validate.subject import Packages, Subject

CHECKPOINT = "random:0"
STAGE_COLUMNS = [
    "stage",
    "computes in",
    "MB",
    "exact dB",
    "fp16 dB",
    "held in 8 bits by",
    "MB",
    "exact dB",
    "fp16 dB",
]
SHOWN = ("parity_decoder_snr_db", "parity_waveform_snr_db", "parity_logits_kl", "parity_log_mel_ratio")

HEADING = (
    "## CoreML, interpreted",
    "",
    f"`{CHECKPOINT}`, target {DEFAULT_TARGET}. Each stage's package against the module it is converted from, on "
    "what a short utterance feeds it: computed exactly from the package's weights, and with every result rounded "
    "to fp16. Modules: the worst SNR of theirs against the reference, of every length that there is a function "
    "for. Not measured on Apple hardware.",
)


def section(folder: Path, _: int) -> list[str]:
    """Of docs/benchmarks.md."""
    lines = list(HEADING)
    for name in MODELS:
        say(f"== CoreML of {name}")
        result = folder / f"coreml-{name}.json"
        subprocess.run([sys.executable, "-m", "bench.coreml", name, str(result)], check=True)
        lines += ["", f"### {name}", "", *_of_model(json.loads(result.read_text(encoding="utf-8")))]
    return lines


def _of_model(found: dict[str, Any]) -> list[str]:
    full, light = (found["variants"][variant] for variant in (COREML, COREML_INT8))
    rows = []
    for one, other in zip(full["stages"], light["stages"], strict=True):
        name = one["stage"]
        figures = [
            [f"{side['sizes'][name]:.1f}", f"{row['exact_snr_db']:.1f}", f"{row['fp16_snr_db']:.1f}"]
            for side, row in ((full, one), (light, other))
        ]
        rows.append([name, one["precision"], *figures[0], found["schemes"][name]["scheme"], *figures[1]])
    whole = {
        variant: ", ".join(f"{metric} {side['metrics'][metric]:.4g}" for metric in SHOWN if metric in side["metrics"])
        for variant, side in found["variants"].items()
    }
    return [
        *table(STAGE_COLUMNS, rows),
        "",
        f"Converted in {found['convert_s']:.0f} s, peak {found['convert_mb']:.0f} MB; quantized in "
        f"{found['quantize_s']:.0f} s; judged in {found['judge_s']:.0f} s, peak {found['peak_mb']:.0f} MB. "
        f"{full['metrics']['size_mb']:.1f} MB, in 8 bits {light['metrics']['size_mb']:.1f} MB. "
        f"Modules {full['metrics']['coreml_modules_snr_db']:.1f} dB. "
        f"Overflows: {full['metrics']['coreml_overflows']:.0f}, {light['metrics']['coreml_overflows']:.0f}.",
        "",
        *(
            f"Whole syntheses of {variant}, in fp16: {said}; verdict {found['verdicts'][variant]}."
            for variant, said in whole.items()
        ),
    ]


def measure(name: str) -> dict[str, Any]:
    """Convert, quantize and judge one model."""
    info = MODELS[name]
    source = locate(CHECKPOINT, info.files, info.companions)
    stages = Stages(name, source, PROFILE, DEFAULT_OPSET, (), say)
    with tempfile.TemporaryDirectory() as home:
        folders = {variant: Path(home) / variant for variant in (COREML, COREML_INT8)}
        for folder in folders.values():
            folder.mkdir()
        loaded = stages.loaded  # not a part of converting
        start = time.perf_counter()
        stages.coreml(DEFAULT_TARGET, folders[COREML])
        converted, peak = time.perf_counter(), peak_mb()
        stages.coreml_int8(DEFAULT_TARGET, folders[COREML], folders[COREML_INT8])
        quantized = time.perf_counter()
        interface = json.loads((folders[COREML] / INTERFACE).read_text(encoding="utf-8"))
        files = {variant: packages(folder, interface["stages"]) for variant, folder in folders.items()}
        spread = spread_of(stages.model, loaded, PROFILE.threads)
        subject = Subject(name, stages.model, loaded, {}, Path(home), PROFILE, spread)
        judging = time.perf_counter()
        found = coreml.measure(subject, Packages(DEFAULT_TARGET, files), say)
        return {
            "schemes": json.loads((folders[COREML_INT8] / SCHEMES).read_text(encoding="utf-8")),
            "convert_s": converted - start,
            "convert_mb": peak,
            "quantize_s": quantized - converted,
            "judge_s": time.perf_counter() - judging,
            "peak_mb": peak_mb(),
            "variants": {
                variant: {
                    "metrics": mine.metrics,
                    "stages": mine.details["coreml"]["stages"],
                    "sizes": {stage: coreml.size_mb(path) for stage, path in files[variant].items()},
                }
                for variant, mine in found.items()
            },
            "verdicts": {variant: mine.judged(subject.gates(variant))["verdict"] for variant, mine in found.items()},
        }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(sys.argv[1])), encoding="utf-8")
