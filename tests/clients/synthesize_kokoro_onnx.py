"""Speaks with kokoro-onnx what the JSON request on standard input asks, and prints one line of JSON.

Request: {release, graph, voice, text | phonemes, speeds}.
Answer: {ids, audio: [{samples, rate, frames, finite, peak, trimmed_samples}]}.
"""

import json
import sys
from pathlib import Path

import numpy as np
from kokoro_onnx import Kokoro


class Recorder:
    """A session that remembers the last run: kokoro-onnx keeps the waveform and not the durations."""

    def __init__(self, session):
        self.session = session

    def run(self, names, inputs):
        self.ids = inputs["input_ids"].ravel().tolist()
        outputs = self.session.run(names, inputs)
        self.frames = int(outputs[1].sum())
        return outputs


request = json.load(sys.stdin)
release = Path(request["release"])
kokoro = Kokoro(str(release / "onnx" / request["graph"]), str(release / "clients/kokoro-onnx/voices.npz"))
kokoro.sess = Recorder(kokoro.sess)

audio = []
for speed in request["speeds"]:
    said = {
        "text": request.get("phonemes") or request["text"],
        "is_phonemes": "phonemes" in request,
        "voice": request["voice"],
        "speed": speed,
    }
    # Pauses are silence that kokoro-onnx adds of its own after a punctuation mark.
    samples, rate = kokoro.create(**said, trim=False, sentence_pause=0, clause_pause=0)
    trimmed, _ = kokoro.create(**said)
    audio.append(
        {
            "samples": len(samples),
            "rate": rate,
            "frames": kokoro.sess.frames,
            "finite": bool(np.isfinite(samples).all()),
            "peak": float(np.abs(samples).max()),
            "trimmed_samples": len(trimmed),
        }
    )
print(json.dumps({"ids": kokoro.sess.ids, "audio": audio}))
