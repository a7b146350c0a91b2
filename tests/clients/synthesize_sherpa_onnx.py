"""Speaks with sherpa-onnx what the JSON request on standard input asks, and prints one line of JSON.

Request: {release, graph, speaker, speeds} and one of the three ways that sherpa-onnx 2 takes phonemes:
`tokens` (a list of them), `codepoints` (a string of them), or `lexicon` (a path) with `text`.
Answer: {speakers, audio: [{samples, rate, finite, peak}]}.
"""

import json
import sys
from pathlib import Path

import numpy as np
import sherpa_onnx

request = json.load(sys.stdin)
release = Path(request["release"])
tts = sherpa_onnx.OfflineTts(
    sherpa_onnx.OfflineTtsConfig(
        model=sherpa_onnx.OfflineTtsModelConfig(
            kokoro=sherpa_onnx.OfflineTtsKokoroModelConfig(
                model=str(release / "onnx" / request["graph"]),
                voices=str(release / "clients/sherpa-onnx/voices.bin"),
                tokens=str(release / "clients/sherpa-onnx/tokens.txt"),
                lexicon=request.get("lexicon", ""),
            ),
            debug=True,  # reads more metadata, and exits when some is missing
            num_threads=1,
        )
    )
)

audio = []
for speed in request["speeds"]:
    generation = sherpa_onnx.GenerationConfig()
    generation.sid = request["speaker"]
    generation.speed = speed
    generation.silence_scale = 1.0  # the default, 0.2, shortens silences
    if "tokens" in request:
        generation.tokens = [request["tokens"]]
    elif "codepoints" in request:
        generation.phoneme_codepoints = [[ord(phoneme) for phoneme in request["codepoints"]]]
    spoken = tts.generate(request.get("text", ""), generation)
    samples = np.array(spoken.samples, dtype=np.float32)
    audio.append(
        {
            "samples": len(samples),
            "rate": spoken.sample_rate,
            "finite": bool(np.isfinite(samples).all()),
            "peak": float(np.abs(samples).max(initial=0)),
        }
    )
print(json.dumps({"speakers": tts.num_speakers, "audio": audio}))
