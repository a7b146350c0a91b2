"""SpeechT5's autoregressive loop, over onnxruntime with everything bound in place. numpy and onnxruntime only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from jtts_export.errors import BadInput

if TYPE_CHECKING:
    import onnxruntime as ort

STOP_THRESHOLD = 0.5
MAX_STEPS_PER_TOKEN = 20  # divided by the reduction factor: transformers' maxlenratio
FIRST_CAPACITY = 256  # steps that the buffers of keys and values hold at first

Memory = Mapping[str, "np.ndarray | ort.OrtValue"]


class Decoder:
    """One decoder graph, for any number of utterances and threads at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        inputs = {i.name: i.shape for i in session.get_inputs()}
        outputs = {o.name: o.shape for o in session.get_outputs()}
        masks = {i.name: i.shape for i in session.get_overridable_initializers()}
        self.session = session
        self.caches = [n for n in inputs if n.startswith("past_key_values.")]
        self.memory = [n for n in inputs if n.startswith(("key.", "value."))]
        self.heads, self.head_size = inputs[self.caches[0]][1], inputs[self.caches[0]][3]
        self.reduction, self.mels = outputs["spectrum"]
        self.max_steps = int(masks["prenet_mask"][0])

    def steps(self, memory: Memory, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Spectrum f32 [reduction, mels] and stop probability f32 [reduction] of each step, to the last.

        memory: key.N f32 [1, heads, head size, tokens] and value.N f32 [1, heads, tokens, head size]. inputs:
        input_ids, speaker_embeddings; and, where transformers' defaults are not wanted, min_steps, max_steps,
        threshold, prenet_mask; `spectrogram` f32 [frames, mels] is fed back instead of what the steps make. Ends as
        transformers' generate_speech does: where the sum of the probabilities reaches the threshold, or at
        max_steps. Raises BadInput where speech goes on beyond the positions that the checkpoint has.
        """
        tokens = inputs["input_ids"].shape[1]
        least = int(inputs.get("min_steps", 0))
        most = max(int(inputs.get("max_steps", tokens * MAX_STEPS_PER_TOKEN // self.reduction)), least, 1)
        threshold = float(inputs.get("threshold", STOP_THRESHOLD))
        history = inputs.get("spectrogram")
        run = _Run(self, memory, inputs, min(FIRST_CAPACITY, self.max_steps))
        for number in range(most):
            if number == self.max_steps:
                raise BadInput(f"the speech has not ended after {number} steps, the most this checkpoint can speak")
            spectrum, prob = run.step(number)
            yield spectrum, prob
            if number + 1 >= least and prob.sum() >= threshold:
                return
            run.frame[0] = spectrum[-1] if history is None else history[(number + 1) * self.reduction - 1]


class _Run:
    """The buffers of one utterance, bound once."""

    def __init__(self, decoder: Decoder, memory: Memory, inputs: Mapping[str, np.ndarray], capacity: int) -> None:
        self.decoder = decoder
        self.binding = decoder.session.io_binding()
        self.frame = np.zeros((1, decoder.mels), np.float32)
        self.position = np.zeros(1, np.int32)
        self.spectrum = np.empty((decoder.reduction, decoder.mels), np.float32)
        self.prob = np.empty(decoder.reduction, np.float32)
        self.speaker = np.ascontiguousarray(inputs["speaker_embeddings"], np.float32)
        self.bind_input("frame", self.frame)
        self.bind_input("position", self.position)
        self.bind_input("speaker_embeddings", self.speaker)
        self.bind_output("spectrum", self.spectrum)
        self.bind_output("prob", self.prob)
        if "prenet_mask" in inputs:
            self.mask = np.ascontiguousarray(inputs["prenet_mask"], np.uint8)
            self.bind_input("prenet_mask", self.mask)
        self.memory = {name: memory[name] for name in decoder.memory}
        for name, value in self.memory.items():
            if isinstance(value, np.ndarray):
                self.memory[name] = value = np.ascontiguousarray(value, np.float32)
                self.bind_input(name, value)
            else:
                self.binding.bind_ortvalue_input(name, value)
        self.caches: dict[str, np.ndarray] = {}
        self.grow(capacity)

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number == self.capacity:
            self.grow(min(2 * number, self.decoder.max_steps))
        self.position[0] = number
        self.decoder.session.run_with_iobinding(self.binding)
        return self.spectrum.copy(), self.prob.copy()

    def grow(self, capacity: int) -> None:
        """Room for keys and values of so many steps; those made so far are kept."""
        self.capacity = capacity
        for name in self.decoder.caches:
            cache = np.zeros((1, self.decoder.heads, capacity, self.decoder.head_size), np.float32)
            if name in self.caches:
                cache[:, :, : self.caches[name].shape[2]] = self.caches[name]
            self.caches[name] = cache
            self.bind_input(name, cache)
            self.bind_output(name.replace("past_key_values", "present"), cache)

    def bind_input(self, name: str, array: np.ndarray) -> None:
        self.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def bind_output(self, name: str, array: np.ndarray) -> None:
        self.binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
