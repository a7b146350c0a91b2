"""Export SpeechT5 as optimum-onnx 0.1.0 does, and quantize that with onnxruntime's dynamic recipe.

Run by .venv-optimum's Python (scripts/setup_optimum.sh), from anywhere; needs no network and no tokenizer:

    .venv-optimum/bin/python bench/optimum_export.py CHECKPOINT_FOLDER VOCODER_FOLDER OUT

Both folders are as save_pretrained writes them. Three folders of the same four graphs come out under OUT:

    fp32           optimum's export, untouched
    int8           quantize_dynamic of MatMul, int8 weights per output channel; convolutions (the vocoder) stay fp32
    int8_defaults  quantize_dynamic with no arguments: MatMul per tensor, Gather, and Conv as ConvInteger

bench/optimum_runner.py runs them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.exporters.onnx import main_export

GRAPHS = ("encoder_model", "decoder_model", "decoder_with_past_model", "decoder_postnet_and_vocoder")


def export(checkpoint: Path, vocoder: Path, out: Path) -> None:
    """optimum's own export: its configuration keeps past keys and values though the task's name does not say so."""
    main_export(
        str(checkpoint),
        out,
        task="text-to-audio",  # -with-past is refused for SpeechT5; its default variant has it all the same
        dtype="fp32",
        model_kwargs={"vocoder": str(vocoder)},
        local_files_only=True,
        do_validation=False,  # it compares draws of the prenet's dropout, and cannot pass
    )
    missing = [name for name in GRAPHS if not (out / f"{name}.onnx").is_file()]
    if missing:
        raise SystemExit(f"optimum_export: optimum wrote no {', '.join(missing)}")


def quantize(source: Path, out: Path) -> None:
    """The best that this recipe does on a CPU: a dynamic ConvInteger is several times slower than the fp32 Conv."""
    out.mkdir(parents=True, exist_ok=True)
    for name in GRAPHS:
        if name == "decoder_postnet_and_vocoder":  # convolutions alone
            shutil.copyfile(source / f"{name}.onnx", out / f"{name}.onnx")
            continue
        quantize_dynamic(
            source / f"{name}.onnx",
            out / f"{name}.onnx",
            op_types_to_quantize=["MatMul"],  # Gemm, of which there is none, would become MatMul before
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def quantize_defaults(source: Path, out: Path) -> None:
    """What quantize_dynamic does when nothing is asked of it."""
    out.mkdir(parents=True, exist_ok=True)
    for name in GRAPHS:
        quantize_dynamic(source / f"{name}.onnx", out / f"{name}.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of SpeechT5ForTextToSpeech")
    parser.add_argument("vocoder", type=Path, help="folder of SpeechT5HifiGan")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for folder in (options.checkpoint, options.vocoder):
        if not (folder / "config.json").is_file():
            parser.error(f"{folder} holds no config.json")
    warnings.filterwarnings("ignore")  # the tracer's
    export(options.checkpoint, options.vocoder, options.out / "fp32")
    quantize(options.out / "fp32", options.out / "int8")
    quantize_defaults(options.out / "fp32", options.out / "int8_defaults")


if __name__ == "__main__":
    main()
