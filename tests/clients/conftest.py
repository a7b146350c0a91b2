"""A release folder for the real clients to load, and the means to run each of them in its own process.

The clients live outside the project's environment (kokoro-onnx's `phonemizer` and our `phonemizer-fork` share
a module name): `scripts/setup_clients.sh` installs them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jtts_export.exporters.kokoro_clients import SAMPLE_RATE_HZ, graph_metadata, write_client_files

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
OFFICIAL_CONFIG = REPOSITORY / "jtts_export/models/kokoro/config.json"

SAMPLES_PER_FRAME = 600
GRAPH_FILES = ("model.onnx", "model_quantized.onnx", "model_fp16.onnx")


@pytest.fixture(scope="session")
def release_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _stand_in_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def python_client() -> Callable[..., Any]:
    """`python_client(script, request)` runs a script of this folder beside kokoro-onnx and sherpa-onnx."""
    python = REPOSITORY / ".venv-clients/bin/python"

    def run(script: str, request: dict[str, Any]) -> Any:
        return _run([str(python), str(HERE / script)], request, installed=python.exists())

    return run


@pytest.fixture(scope="session")
def node_client() -> Callable[..., Any]:
    """`node_client(script, request)` runs a script of node/ beside kokoro-js."""
    installed = shutil.which("node") is not None and (HERE / "node/node_modules/kokoro-js").is_dir()

    def run(script: str, request: dict[str, Any]) -> Any:
        return _run(["node", str(HERE / "node" / script)], request, installed=installed)

    return run


def _run(command: Sequence[str], request: dict[str, Any], *, installed: bool) -> Any:
    """The client's answer to one JSON request: the last line of its standard output."""
    if not installed:
        pytest.fail("this client is not installed: run scripts/setup_clients.sh", pytrace=False)
    done = subprocess.run(
        command,
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    # sherpa-onnx ends the process without a Python exception: its last words are all there is.
    if done.returncode != 0 or not done.stdout.strip():
        pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _stand_in_release(folder: Path) -> Path:
    """A release around a graph that obeys the contract of the real one and says a tone for each token."""
    config = json.loads(OFFICIAL_CONFIG.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    voices = {
        name: rng.normal(0, 0.2, (510, 1, 256)).astype(np.float32)
        for name in ("bm_george", "af_heart", "af_bella")
    }
    write_client_files(folder, config, voices)
    graph = _stand_in_graph()
    helper.set_model_props(graph, graph_metadata(config, voices))
    (folder / "onnx").mkdir()
    for name in GRAPH_FILES:
        onnx.save(graph, folder / "onnx" / name)
    return folder


def _stand_in_graph() -> onnx.ModelProto:
    """input_ids int64 [1, n], style [1, 256], speed [1] -> waveform [1, samples], duration int64 [1, n].

    Token i lasts round((3 + i mod 4) / speed) frames; the tone's level follows the style. As in the real
    graph, `source_noise` is an initializer that is also an input: a caller may override it; clients need not.
    """
    constants = {
        "source_noise": np.arange(-50, 50, dtype=np.int8),
        "base_frames": np.array(3.0, np.float32),
        "frame_cycle": np.array(4, np.int64),
        "samples_per_frame": np.array(SAMPLES_PER_FRAME, np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "radians_per_sample": np.array(2 * np.pi * 220 / SAMPLE_RATE_HZ, np.float32),
        "level": np.array(0.3, np.float32),
        "batch_axis": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Mod", ["input_ids", "frame_cycle"], ["extra_frames"]),
        helper.make_node("Cast", ["extra_frames"], ["extra_frames_f32"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["extra_frames_f32", "base_frames"], ["frames_at_speed_1"]),
        helper.make_node("Div", ["frames_at_speed_1", "speed"], ["frames_exact"]),
        helper.make_node("Round", ["frames_exact"], ["frames"]),
        helper.make_node("Cast", ["frames"], ["duration"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["duration"], ["n_frames"], keepdims=0),
        helper.make_node("Mul", ["n_frames", "samples_per_frame"], ["n_samples"]),
        helper.make_node("Range", ["zero", "n_samples", "one"], ["sample"]),
        helper.make_node("Cast", ["sample"], ["sample_f32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sample_f32", "radians_per_sample"], ["phase"]),
        helper.make_node("Cast", ["source_noise"], ["noise_f32"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["noise_f32"], ["phase_offset"], keepdims=0),
        helper.make_node("Add", ["phase", "phase_offset"], ["phase_with_noise"]),
        helper.make_node("Sin", ["phase_with_noise"], ["tone"]),
        helper.make_node("ReduceMean", ["style"], ["style_mean"], keepdims=0),
        helper.make_node("Add", ["style_mean", "level"], ["gain"]),
        helper.make_node("Mul", ["tone", "gain"], ["samples"]),
        helper.make_node("Unsqueeze", ["samples", "batch_axis"], ["waveform"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stand_in",
        inputs=[
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "n"]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
            helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("source_noise", TensorProto.INT8, constants["source_noise"].shape),
        ],
        outputs=[
            helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, "samples"]),
            helper.make_tensor_value_info("duration", TensorProto.INT64, [1, "n"]),
        ],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
