"""How clients load a release: code for its model card, that tests/clients runs as it stands there.

Each runs in the folder of a release, and writes beside it: a file inside would make it another release.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePosixPath

from .models import Info
from .runtime.names import VARIANT_SUFFIX, graph_file

_PLAIN = re.compile(r"[\w.-]+", re.ASCII)
DTYPES = {"int8": "q8", "fp16": "fp16", "fp32": "fp32"}  # transformers.js's names for variants


@dataclass(frozen=True)
class Snippet:
    """title: the client, and how it is installed; language: of the code block."""

    title: str
    language: str
    code: str


def snippets(info: Info, variants: Collection[str], files: Collection[str]) -> list[Snippet]:
    """Of every client that loads a release of these variants and files."""
    variant = next((v for v in DTYPES if v in variants), "fp32")
    own = Snippet("jtts-export", "bash", f"jtts-export {info.example}")
    made = {"kokoro": _kokoro, "speecht5": _speecht5, "t3": _t3}[info.name](variant, files)
    return [own, *made]


def voices(files: Collection[str], folder: str, suffix: str) -> list[str]:
    """Names of voices, from those of their files: those that stand in code as they are."""
    paths = (PurePosixPath(name) for name in sorted(files))
    names = [path.stem for path in paths if path.parent.name == folder and path.suffix == suffix]
    return [name for name in names if _PLAIN.fullmatch(name)]


def _kokoro(variant: str, files: Collection[str]) -> list[Snippet]:
    graph, voice = graph_file("onnx/model", variant), next(iter(voices(files, "voices", ".bin")), "af_heart")
    return [
        Snippet(
            "kokoro-onnx (`pip install kokoro-onnx soundfile`)",
            "python",
            f"""import soundfile
from kokoro_onnx import Kokoro

kokoro = Kokoro("{graph}", "clients/kokoro-onnx/voices.npz")
audio, rate = kokoro.create("Hello there.", voice="{voice}", speed=1.0)
soundfile.write("../hello.wav", audio, rate)""",
        ),
        Snippet(
            "sherpa-onnx (`pip install sherpa-onnx`), from phonemes",
            "python",
            f"""import sherpa_onnx

files = sherpa_onnx.OfflineTtsKokoroModelConfig(
    model="{graph}",
    voices="clients/sherpa-onnx/voices.bin",
    tokens="clients/sherpa-onnx/tokens.txt",
)
model = sherpa_onnx.OfflineTtsModelConfig(kokoro=files)
tts = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=model))
asked = sherpa_onnx.GenerationConfig()
asked.sid = 0  # the voice's number, in the order of their names
asked.phoneme_codepoints = [[ord(phoneme) for phoneme in "həlˈoʊ ðˈɛɹ."]]
audio = tts.generate("", asked)
sherpa_onnx.write_wave("../hello.wav", audio.samples, audio.sample_rate)""",
        ),
        Snippet(
            "kokoro-js (`npm install kokoro-js`), with the voices that come with it",
            "js",
            f"""{_local("kokoro-js", "KokoroTTS")}
const tts = await KokoroTTS.from_pretrained(folder, {{ dtype: "{DTYPES[variant]}", device: "cpu" }});
const audio = await tts.generate("Hello there.", {{ voice: "af_heart" }});
await audio.save("../hello.wav");""",
        ),
    ]


def _speecht5(variant: str, files: Collection[str]) -> list[Snippet]:
    speaker = next(iter(voices(files, "speakers", ".bin")), "NAME")
    dtype = DTYPES[variant]
    return [
        Snippet(
            "transformers.js (`npm install @huggingface/transformers`)",
            "js",
            f"""import {{ readFileSync }} from "node:fs";
{_local("@huggingface/transformers", "SpeechT5HifiGan", "pipeline")}
const speech = await pipeline("text-to-speech", folder, {{ dtype: "{dtype}" }});
speech.vocoder = await SpeechT5HifiGan.from_pretrained(`${{folder}}/vocoder`, {{ dtype: "{dtype}" }});
const xvector = new Uint8Array(readFileSync("speakers/{speaker}.bin"));
const audio = await speech("hello there.", {{ speaker_embeddings: new Float32Array(xvector.buffer) }});
await audio.save("../hello.wav");""",
        )
    ]


def _local(package: str, *names: str) -> str:
    """Imports of transformers.js's kin, told to read this folder and nothing else."""
    own = f'import {{ {", ".join(names)} }} from "{package}";'
    if package != "@huggingface/transformers":
        own = f'import {{ env }} from "@huggingface/transformers";\n{own}'
    else:
        own = own.replace("{ ", "{ env, ", 1)
    return f"""import {{ basename }} from "node:path";
{own}

env.allowRemoteModels = false;
env.localModelPath = "..";
const folder = basename(process.cwd());"""


def _t3(variant: str, files: Collection[str]) -> list[Snippet]:
    voice = next(iter(voices(files, "voices", ".safetensors")), "NAME")
    return [
        Snippet(
            "Python, as tokens come",
            "python",
            f"""from pathlib import Path
from jtts_export.runtime.t3 import T3

t3 = T3.open(Path(), "{variant}")  # once; threads may share it
for token in t3.stream("Hello there.", voice="{voice}", seed=1):
    print(token)  # 25 a second, for Chatterbox's vocoder""",
        ),
        Snippet(
            "onnxruntime alone, greedily (`pip install onnxruntime transformers safetensors`)",
            "python",
            _GREEDY.format(suffix=VARIANT_SUFFIX[variant], voice=voice),
        ),
    ]


_GREEDY = """import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from transformers import AutoTokenizer

START, STOP = 6561, 6562
conditioning, embed, model = (
    onnxruntime.InferenceSession(f"onnx/{{name}}{suffix}.onnx")
    for name in ("conditioning", "embed_tokens", "language_model")
)
# A multilingual model's text begins with its language, as "[en]hello there."
ids = AutoTokenizer.from_pretrained(".")("Hello there.", return_tensors="np")["input_ids"].astype(np.int64)
voice = load_file("voices/{voice}.safetensors")


def embedded(tokens, positions):
    given = {{"input_ids": tokens, "position_ids": positions, "exaggeration": np.float32([0.5])}}
    return embed.run(None, given)[0]


prompt = voice["cond_prompt_speech_tokens"]
rows = embedded(prompt.T, np.arange(prompt.shape[1])[:, None]).swapaxes(0, 1)
given = {{"speaker_emb": voice["speaker_emb"], "cond_prompt_speech_emb": np.ascontiguousarray(rows)}}
positions = np.where(ids >= START, 0, np.arange(ids.shape[1])[None] - 1)
rows = np.concatenate([conditioning.run(None, given)[0], embedded(ids, positions)], axis=1)
past = {{
    one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32)
    for one in model.get_inputs()
    if one.name.startswith("past_key_values")
}}
length, tokens = rows.shape[1], []
while len(tokens) < 1000:
    mask = np.ones((1, length + len(tokens)), np.int64)
    logits, *present = model.run(None, {{"inputs_embeds": rows, "attention_mask": mask, **past}})
    scores = logits[0, -1]
    said = np.unique([START, *tokens])
    scores[said] = np.where(scores[said] < 0, scores[said] * 1.2, scores[said] / 1.2)
    if (token := int(scores.argmax())) == STOP:
        break
    tokens.append(token)
    past = dict(zip(past, present))
    rows = embedded(np.array([[token]]), np.array([[len(tokens)]]))
print([token for token in tokens if token < START])"""
