"""What docs/demo-voice.md shows and plays: one unseen sentence by espeak-ng and by a release's variants.

python -m demo.pictures DATA.npz RELEASE FOLDER
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import numpy as np
import soundfile

from jtts_export.exporters.kokoro import GRAPH
from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.report.media import Clip
from jtts_export.runtime.kokoro import read_assets
from jtts_export.runtime.names import graph_file
from jtts_export.runtime.taps import OnnxRunner

from .data import Utterance, load
from .evaluate import THREADS, kokoro_inputs
from .export import NAMES

SHOWN = ("fp32", "int8")
SENTENCES = {
    0: "Thunder rolled over the hills, but no rain fell.",
    1: "A good editor removes more words than she adds.",
}


def _said(utterance: Utterance, release: Path) -> dict[str, np.ndarray]:
    """By espeak-ng, and by each variant from nothing but the tokens."""
    _, voices = read_assets(release)
    said = {"espeak": utterance.audio}
    for variant in SHOWN:
        runner = OnnxRunner(GRAPH.name, release / graph_file(GRAPH.name, variant), THREADS)
        said[variant] = runner.taps(kokoro_inputs(utterance, voices), ["waveform"])["waveform"][0]
    return said


def main() -> None:
    unseen = load(Path(sys.argv[1]).with_name("held_out.npz"))
    release, folder = Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for voice, text in SENTENCES.items():
        said = _said(next(u for u in unseen if (u.voice, u.text) == (voice, text)), release)
        clips = {name: Clip(audio, SAMPLE_RATE_HZ) for name, audio in said.items()}
        top_db = max(float(clip.level_db.max()) for clip in clips.values())
        for name, clip in clips.items():
            path = folder / f"{NAMES[voice]}-{name}"
            soundfile.write(path.with_suffix(".ogg"), clip.audio, SAMPLE_RATE_HZ, format="OGG", subtype="VORBIS")
            picture = clip.picture(top_db).partition(",")[2]
            path.with_suffix(".webp").write_bytes(base64.b64decode(picture))


if __name__ == "__main__":
    main()
