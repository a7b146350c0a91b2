"""Taps of SpeechT5's graphs. Needs onnx, not torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from .session import open_graph
from .speecht5 import DECODER, ENCODER, VOCODER
from .speecht5_decoder import Decoder
from .taps import Arrays, Graphs, OnnxRunner, cut, loaded

if TYPE_CHECKING:
    import onnxruntime as ort

CLIENT_DECODER = "onnx/decoder_model_merged"
TAPS = {
    "encoder_states": "f32 [1, tokens, hidden]",
    "encoder_outputs": "keys and values of every cross-attention, f32 [1, tokens, 2 x layers x hidden]",
    "steps": "int64 [1], of the decoder",
    "spectrogram": "before the postnet, f32 [frames, mels]",
    "prob": "of the end, f32 [steps, reduction]",
    "mel": "behind the postnet, f32 [frames, mels]",
    "waveform": "f32 [samples]",
    "client_spectrogram": "as the graph for transformers.js makes it, f32 [frames, mels]",
}
_FROM = {
    ENCODER: ("encoder_states", "encoder_outputs"),
    DECODER: ("steps", "spectrogram", "prob"),
    VOCODER: ("mel", "waveform"),
    CLIENT_DECODER: ("client_spectrogram",),
}
_NEEDS = {ENCODER: "", DECODER: "encoder_outputs", VOCODER: "spectrogram", CLIENT_DECODER: "encoder_outputs"}


class SpeechT5Runner:
    """Encoder and vocoder cut at their taps, the decoder in its loop. Every tap of an utterance is made once."""

    def __init__(self, graphs: Graphs, threads: int, optimize: bool = True) -> None:
        self._graphs, self._threads, self._optimize = graphs, threads, optimize
        self._decoders: dict[str, Decoder | ClientDecoder] = {}
        self._runners = {
            name: OnnxRunner(name, graphs[name], threads, optimize) for name in (ENCODER, VOCODER) if name in graphs
        }
        self._made: dict[tuple, np.ndarray] = {}

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """Tensors by the names in TAPS. Forcing `steps` fixes the length; `spectrogram` and `encoder_outputs`
        stand in for what comes before them."""
        return {name: self._tap(name, inputs, forced or {}) for name in wanted}

    def parts(self, inputs: Iterable[str], wanted: str, forced: Iterable[str]) -> dict[str, onnx.ModelProto]:
        found: dict[str, onnx.ModelProto] = {}
        todo, given = [wanted], {*inputs, *forced}
        while todo:
            tap = todo.pop()
            graph = _graph_of(tap)
            if tap in given or graph in found:
                continue
            found[graph] = loaded(self._graphs[graph])
            if graph in self._runners:
                takes = [i.name for i in found[graph].graph.input]
                found[graph] = cut(found[graph], takes, [tap])
            todo += [_NEEDS[graph]] if _NEEDS[graph] else []
        return found

    def feeds(self, inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
        """What each graph takes: encoder and vocoder the whole utterance, the decoder the step in its middle."""
        made = self.taps(inputs, ["encoder_outputs", "spectrogram", "steps"])
        decoder = self._decoders[DECODER]
        assert isinstance(decoder, Decoder)
        feed = {n: np.zeros((1, decoder.heads, 0, decoder.head_size), np.float32) for n in decoder.caches}
        feed |= unpack(made["encoder_outputs"], decoder.heads, decoder.head_size)
        feed |= {n: inputs[n] for n in ("speaker_embeddings", "prenet_mask") if n in inputs}
        feed |= {"frame": np.zeros((1, decoder.mels), np.float32), "position": np.zeros(1, np.int32)}
        present = [n.replace("past_key_values", "present") for n in decoder.caches]
        for number in range(int(made["steps"][0]) // 2):
            spectrum, *caches = decoder.session.run(["spectrum", *present], feed)
            feed |= dict(zip(decoder.caches, caches, strict=True))
            feed |= {"frame": spectrum[-1:], "position": np.array([number + 1], np.int32)}
        ids = {"input_ids": inputs["input_ids"]}
        return {ENCODER: ids, DECODER: feed, VOCODER: {"spectrogram": made["spectrogram"]}}

    def _binding(self, inputs: Arrays, forced: Arrays) -> Arrays:
        """Without a length that the utterance is known to have by itself."""
        free = self._made.get(("steps", _digest(inputs), ()))
        if "steps" not in forced or free is None or not np.array_equal(free, forced["steps"]):
            return forced
        return {name: value for name, value in forced.items() if name != "steps"}

    def _tap(self, name: str, inputs: Arrays, forced: Arrays) -> np.ndarray:
        if name in forced:
            return forced[name]
        graph = _graph_of(name)
        if graph != CLIENT_DECODER:  # which does not end by itself
            forced = self._binding(inputs, forced)
        key = (name, _digest(inputs), _digest(forced))
        if key not in self._made:
            before = {need: self._tap(need, inputs, forced) for need in [_NEEDS[graph]] if need}
            made = self._run(graph, name, inputs, before, forced)
            self._made |= {(tap, *key[1:]): value for tap, value in made.items()}
        return self._made[key]

    def _run(self, graph: str, name: str, inputs: Arrays, before: Arrays, forced: Arrays) -> dict[str, np.ndarray]:
        if graph in self._runners:
            return self._runners[graph].taps({**inputs, **before}, [name])
        if graph not in self._decoders:
            kind = Decoder if graph == DECODER else ClientDecoder
            self._decoders[graph] = kind(open_graph(self._graphs[graph], self._threads, self._optimize))
        limits = {"min_steps": forced["steps"][0], "max_steps": forced["steps"][0]} if "steps" in forced else {}
        decoder = self._decoders[graph]
        memory = {**before, **unpack(before["encoder_outputs"], decoder.heads, decoder.head_size)}
        frames, probs = zip(*decoder.steps(memory, {**inputs, **limits}), strict=True)
        if graph == CLIENT_DECODER:
            return {"client_spectrogram": np.concatenate(frames)}
        return {"spectrogram": np.concatenate(frames), "prob": np.stack(probs), "steps": np.array([len(frames)])}


class ClientDecoder:
    """The decoder as transformers.js runs it: everything said so far goes in, keys and values grow."""

    def __init__(self, session: ort.InferenceSession) -> None:
        inputs = {i.name: i.shape for i in session.get_inputs()}
        self.session = session
        self.caches = [n for n in inputs if n.startswith("past_key_values.")]
        self.heads, self.head_size = inputs[self.caches[0]][1], inputs[self.caches[0]][3]
        self.mels = inputs["output_sequence"][2]

    def steps(self, memory: Arrays, inputs: Arrays) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Spectrum and stop probabilities of exactly max_steps steps."""
        caches = {n: np.zeros((1, self.heads, 0, self.head_size), np.float32) for n in self.caches}
        sequence = np.zeros((1, 1, self.mels), np.float32)
        present = [n.replace("past_key_values", "present") for n in self.caches]
        wanted = ["spectrum", "prob", "output_sequence_out", *present]
        packed = memory["encoder_outputs"]
        given = {
            "speaker_embeddings": inputs["speaker_embeddings"],
            "encoder_hidden_states": packed,
            "encoder_attention_mask": np.ones(packed.shape[:2], np.int64),
            "use_cache_branch": np.zeros(1, bool),
        }
        if "prenet_mask" in inputs:
            given["prenet_mask"] = inputs["prenet_mask"]
        for _ in range(int(inputs["max_steps"])):
            feed = {**given, **caches, "output_sequence": sequence}
            spectrum, prob, sequence, *made = self.session.run(wanted, feed)
            caches = dict(zip(self.caches, made, strict=True))
            yield spectrum, prob


def unpack(encoder_outputs: np.ndarray, heads: int, head_size: int) -> dict[str, np.ndarray]:
    """encoder_outputs -> key.N f32 [1, heads, head size, tokens] and value.N f32 [1, heads, tokens, head size]."""
    layers = encoder_outputs.reshape(encoder_outputs.shape[1], -1, 2, heads, head_size).transpose(1, 2, 3, 0, 4)
    keys = {f"key.{i}": key[None].swapaxes(2, 3) for i, (key, _) in enumerate(layers)}
    return keys | {f"value.{i}": value[None] for i, (_, value) in enumerate(layers)}


def _graph_of(tap: str) -> str:
    return next(graph for graph, taps in _FROM.items() if tap in taps)


def _digest(arrays: Arrays) -> tuple:
    return tuple((name, hash(arrays[name].tobytes())) for name in sorted(arrays))
