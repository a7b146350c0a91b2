"""T3's language model in a session: keys and values in buffers that every step extends in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .t3_generation import Output

if TYPE_CHECKING:
    import onnxruntime as ort

BLOCK = 512  # positions that buffers grow by; memory is only used where it was written to
TYPES = {"tensor(float)": np.float32, "tensor(int8)": np.int8}
_PAST, _PRESENT = "past_key_values", "present"


class Decoder:
    """The session, which threads may share, and what its graph says of itself."""

    def __init__(self, session: ort.InferenceSession) -> None:
        inputs = {i.name: i for i in session.get_inputs()}
        outputs = {o.name: o for o in session.get_outputs()}
        self.session = session
        self.past = [name for name in inputs if name.startswith(_PAST)]
        _, self.heads, _, self.head_size = inputs[self.past[0]].shape
        self.dtype = TYPES[inputs[self.past[0]].type]
        self.hidden, self.vocabulary = inputs["inputs_embeds"].shape[2], outputs["logits"].shape[2]
        self.aligns = "alignment" in outputs


class KeyValues:
    """Keys and values of one utterance at a time, for one thread at a time.

    arrays: one for each `past` of the decoder, [rows, heads, capacity, head size].
    """

    def __init__(self, decoder: Decoder, rows: int, positions: int) -> None:
        self.rows, self.capacity = rows, -(-positions // BLOCK) * BLOCK
        self._decoder = decoder
        shape = (rows, decoder.heads, self.capacity, decoder.head_size)
        self.arrays = [np.empty(shape, decoder.dtype) for _ in decoder.past]
        self._mask = np.ones((rows, self.capacity), np.int64)
        self._embeds = np.empty((rows, 1, decoder.hidden), np.float32)
        self._logits = np.empty((rows, 1, decoder.vocabulary), np.float32)
        self._binding = self._bound(slice(None), self._embeds, self._logits)

    def step(self, embeds: np.ndarray, past: int) -> Output:
        """Every row by one position, [rows, 1, hidden]. The logits are overwritten by the next step."""
        self._embeds[:] = embeds
        return self._run(self._binding, self._logits, past, 1)

    def fill(self, row: int, embeds: np.ndarray, past: int) -> Output:
        """One row by any number of positions, [1, sequence, hidden]."""
        logits = np.empty((1, 1, self._logits.shape[2]), np.float32)
        embeds = np.ascontiguousarray(embeds, np.float32)
        return self._run(self._bound(slice(row, row + 1), embeds, logits), logits, past, embeds.shape[1])

    def reach(self, positions: int) -> dict[str, np.ndarray]:
        """Past -> the largest magnitude in each channel of the first positions, [heads, head size]."""
        arrays = zip(self._decoder.past, self.arrays, strict=True)
        return {name: np.abs(array[:, :, :positions]).max(axis=(0, 2)) for name, array in arrays}

    def copy_from(self, arrays: Sequence[np.ndarray], row: int, positions: int) -> None:
        """A row's first positions, from arrays [heads, positions, head size]."""
        for mine, theirs in zip(self.arrays, arrays, strict=True):
            mine[row, :, :positions] = theirs[:, :positions]

    def _bound(self, rows: slice, embeds: np.ndarray, logits: np.ndarray) -> ort.IOBinding:
        binding = self._decoder.session.io_binding()
        for name, array in zip(self._decoder.past, self.arrays, strict=True):
            where = array[rows].shape, array[rows].ctypes.data
            binding.bind_input(name, "cpu", 0, array.dtype, *where)
            binding.bind_output(name.replace(_PAST, _PRESENT), "cpu", 0, array.dtype, *where)
        binding.bind_input("inputs_embeds", "cpu", 0, np.float32, embeds.shape, embeds.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return binding

    def _run(self, binding: ort.IOBinding, logits: np.ndarray, past: int, sequence: int) -> Output:
        total = past + sequence
        binding.bind_input("attention_mask", "cpu", 0, np.int64, (len(logits), total), self._mask.ctypes.data)
        attention = np.empty((sequence, total), np.float32) if self._decoder.aligns else None
        if attention is not None:
            binding.bind_output("alignment", "cpu", 0, np.float32, attention.shape, attention.ctypes.data)
        self._decoder.session.run_with_iobinding(binding)
        return Output(logits[:, 0], attention)
