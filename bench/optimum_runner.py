"""Run optimum's SpeechT5 graphs (bench/optimum_export.py) as fast as they allow, for a fixed number of steps."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

Values = dict[str, ort.OrtValue]


class OptimumSpeechT5:
    """One export, fp32 or int8, on `threads` threads. The prenet's dropout is drawn anew at every step.

    Keys and values pass from step to step as OrtValues, the cross-attention's bound once; nothing is copied to
    numpy but the spectrogram. `variant` names another of the export's folders than fp32 and int8.
    """

    def __init__(self, folder: Path, int8: bool, threads: int, variant: str | None = None) -> None:
        files = folder / (variant or ("int8" if int8 else "fp32"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3

        def opened(name: str) -> ort.InferenceSession:
            return ort.InferenceSession(str(files / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])

        self.encoder = opened("encoder_model")
        self.first = opened("decoder_model")
        self.step = opened("decoder_with_past_model")
        self.vocoder = opened("decoder_postnet_and_vocoder")
        self.mels = {value.name: value.shape for value in self.first.get_inputs()}["output_sequence"][2]

    def synthesize(self, input_ids: np.ndarray, speaker: np.ndarray, steps: int) -> np.ndarray:
        """Waveform, float32 [samples], of ids, int64 [1, n], by a speaker, float32 [1, 512], after `steps` steps.

        A step is `reduction_factor` frames; no stop probability is looked at.
        """
        spectrogram = self.spectrogram(input_ids, speaker, steps)
        waveform: np.ndarray = self.vocoder.run(["waveform"], {"spectrogram": spectrogram})[0]
        return waveform

    def spectrogram(self, input_ids: np.ndarray, speaker: np.ndarray, steps: int) -> np.ndarray:
        """Float32 [steps * reduction_factor, mels], before the postnet."""
        assert steps >= 1
        encoded = _run(self.encoder, {"input_ids": _value(input_ids)})
        fixed = {
            "speaker_embeddings": _value(speaker),
            "encoder_attention_mask": encoded["encoder_attention_mask"],
        }
        start = _value(np.zeros((1, 1, self.mels), np.float32))
        made = _run(
            self.first, {**fixed, "output_sequence": start, "encoder_hidden_states": encoded["encoder_outputs"]}
        )
        spectra = [made["spectrum"]]

        binding = self.step.io_binding()
        for name, value in {**fixed, **_past(made, "encoder")}.items():
            binding.bind_ortvalue_input(name, value)
        names = [value.name for value in self.step.get_outputs()]
        for _ in range(steps - 1):
            binding.bind_ortvalue_input("output_sequence", made["output_sequence_out"])
            for name, value in _past(made, "decoder").items():
                binding.bind_ortvalue_input(name, value)
            made = _outputs(self.step, binding, names)
            spectra.append(made["spectrum"])
        return np.concatenate([value.numpy() for value in spectra])


def _run(session: ort.InferenceSession, inputs: Values) -> Values:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    return _outputs(session, binding, [value.name for value in session.get_outputs()])


def _outputs(session: ort.InferenceSession, binding: ort.IOBinding, names: list[str]) -> Values:
    binding.clear_binding_outputs()  # else the run before's would be written over, in their old shapes
    for name in names:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    return dict(zip(names, binding.get_outputs(), strict=True))


def _past(made: Values, side: str) -> Values:
    """The presents of "decoder" (self-attention) or "encoder" (cross-attention) by the names that take them."""
    found = {name: value for name, value in made.items() if name.startswith("present.") and f".{side}." in name}
    return {name.replace("present.", "past_key_values.", 1): value for name, value in found.items()}


def _value(array: np.ndarray) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
