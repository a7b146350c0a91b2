"""Where two files differ: said by node, tensor, key or byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal

from jtts_export.difference import explain
from jtts_export.exporters.onnx import save
from jtts_export.surgery import set_constant

TEXT = "(float[1,4,N] x) => (float[1,4,N] y) { a = Conv(x, w) c = Mul(a, k) y = LeakyRelu<alpha=0.1>(c) }"
WEIGHT = normal(0, 4, 4, 1)


def made(change: Callable[[ir.Model], object] | None = None, text: str = TEXT) -> ir.Model:
    model = graph(text, {"w": WEIGHT, "k": np.float32([2.0])})
    for number, node in enumerate(model.graph):
        node.name = f"node {number}"
    if change:
        change(model)
    return model


def explained(
    tmp_path: Path, change: Callable[[ir.Model], object] | None, text: str = TEXT, external: bool = False
) -> str:
    paths = [tmp_path / which / "model.onnx" for which in ("released", "made")]
    for path, model in zip(paths, (made(), made(change, text)), strict=True):
        save(model, path, external)
    return explain(*paths)


def nudged(model: ir.Model) -> None:
    weight = WEIGHT.copy()
    weight[2, 1, 0] += 0.5
    set_constant(model.graph.initializers["w"], weight)


def test_a_weight_is_named_with_how_far_it_is_off(tmp_path: Path) -> None:
    said = explained(tmp_path, nudged)
    assert said.startswith(
        "tensor 'w' (float32 [4, 4, 1]): 1 of 16 values differ, by at most 0.5 where the largest is"
    )


def test_several_weights_are_counted(tmp_path: Path) -> None:
    def both(model: ir.Model) -> None:
        nudged(model)
        set_constant(model.graph.initializers["k"], np.float32([3.0]))

    assert explained(tmp_path, both).endswith("; and 1 other tensors")


def test_a_weight_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    def wider(model: ir.Model) -> None:
        set_constant(model.graph.initializers["k"], np.float32([2.0, 2.0, 2.0]).reshape(1, 3, 1)[:, :1])

    assert "tensor 'k' is float32 [1] against float32 [1, 1, 1]" in explained(tmp_path, wider)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT.replace("alpha=0.1", "alpha=0.2"), "node 2, LeakyRelu 'node 2': attributes.alpha: "),
        (TEXT.replace("Mul", "Add"), "node 1, Mul 'node 1': Mul against Add"),
        (TEXT.replace("Mul(a, k)", "Mul(k, a)"), "node 1, Mul 'node 1': tensors.0: 'a' against 'k'"),
        (TEXT.replace("y = LeakyRelu<alpha=0.1>(c)", "d = Abs(c) y = LeakyRelu<alpha=0.1>(d)"), "node 2, LeakyRelu"),
    ],
)
def test_a_node_is_named(tmp_path: Path, text: str, expected: str) -> None:
    assert explained(tmp_path, None, text).startswith(expected)


def test_what_a_graph_says_of_itself_is_compared(tmp_path: Path) -> None:
    said = explained(tmp_path, lambda model: model.metadata_props.update(speaker="other"))
    assert said == "metadata.speaker: None against 'other'"


def test_weights_in_a_file_beside_the_graph_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jtts_export.exporters.onnx.EXTERNAL_BYTES", 16)
    explained(tmp_path, nudged, external=True)
    data = [tmp_path / which / "model.onnx_data" for which in ("released", "made")]
    assert explain(*data).startswith("tensor 'w' (float32 [4, 4, 1]): 1 of 16 values differ")


def written(tmp_path: Path, name: str, one: bytes, other: bytes) -> list[Path]:
    paths = [tmp_path / which / name for which in ("released", "made")]
    for path, data in zip(paths, (one, other), strict=True):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return paths


def test_json_is_compared_by_key(tmp_path: Path) -> None:
    one, other = {"a": [1, {"b": 2}], "c": "x" * 100}, {"a": [1, {"b": 3}], "c": "x" * 100}
    paths = written(tmp_path, "config.json", json.dumps(one).encode(), json.dumps(other).encode())
    assert explain(*paths) == "a.1.b: 2 against 3"


def test_json_that_is_written_otherwise_differs_in_its_bytes(tmp_path: Path) -> None:
    assert explain(*written(tmp_path, "config.json", b'{"a":1}', b'{"a": 1}')) == "from byte 5 of 7 against 8 bytes"


@pytest.mark.parametrize(
    "name", ["voices.bin", "model.onnx", "model.onnx_data", "config.json", "x.mlpackage/weight.bin"]
)
def test_of_what_cannot_be_read_the_byte_is_said(tmp_path: Path, name: str) -> None:
    data = bytes(range(256)) * 8192
    changed = data[:1_500_000] + b"\xff\xff" + data[1_500_002:]
    assert explain(*written(tmp_path, name, data, changed)) == "from byte 1500000 of 2097152 bytes"


def test_a_file_that_ends_early_differs_where_it_ends(tmp_path: Path) -> None:
    assert explain(*written(tmp_path, "voices.bin", b"abcdef", b"abcd")) == "from byte 4 of 6 against 4 bytes"
