"""Reading of packages: metadata, damage, paths that lead outside, ops that nobody defined."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.proto import Model_pb2
from mil.programs import convert
from torch import nn

from jtts_export import mil

INPUT = {"x0": np.ones((1, 64), np.float32)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "net.mlpackage"
    net = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 8))
    return convert(net, (torch.zeros(1, 64),), path)


@pytest.fixture
def package(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "net.mlpackage"))


def _model_file(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def _weights(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def _edit(package: Path, edit: Any) -> None:
    model = Model_pb2.Model()
    model.ParseFromString(_model_file(package).read_bytes())
    function = model.mlProgram.functions["main"]
    edit(function.block_specializations[function.opset])
    _model_file(package).write_bytes(model.SerializeToString())


def _op(block: Any, kind: str) -> Any:
    return next(operation for operation in block.operations if operation.type == kind)


def test_metadata_is_read(package: Path) -> None:
    model = ct.models.MLModel(str(package), skip_model_load=True)
    model.short_description, model.author, model.license, model.version = "a net", "me", "MIT", "1.2"
    model.user_defined_metadata["voice"] = "low"
    model.save(str(package.with_name("named.mlpackage")))
    loaded = mil.load(package.with_name("named.mlpackage"))
    assert loaded.metadata.short_description == "a net"
    assert (loaded.metadata.author, loaded.metadata.licence, loaded.metadata.version) == ("me", "MIT", "1.2")
    assert loaded.metadata.user_defined["voice"] == "low"
    assert loaded.spec_version == ct.target.iOS17.value
    assert loaded.functions["main"].inputs == {"x0": mil.TensorType("fp32", (1, 64))}
    assert loaded.default_function == "main"


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"rootModelIdentifier": "a", "itemInfoEntries": {}}'])
def test_a_damaged_manifest_is_named(content: str, package: Path) -> None:
    (package / "Manifest.json").write_text(content)
    with pytest.raises(mil.BadPackage, match=r"Manifest\.json"):
        mil.load(package)


def test_a_manifest_that_leads_outside_is_refused(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../other/model.mlmodel"
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(mil.BadPackage, match="outside the package"):
        mil.load(package)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(mil.BadPackage, match=r"nothing\.mlpackage"):
        mil.load(tmp_path / "nothing.mlpackage")


@pytest.mark.parametrize("content", [b"", b"\xff\xff not protobuf"])
def test_a_damaged_model_is_named(content: bytes, package: Path) -> None:
    _model_file(package).write_bytes(content)
    with pytest.raises(mil.BadPackage, match=r"model\.mlmodel"):
        mil.load(package)


@pytest.mark.parametrize("size", [0, 10, 64, 200, 8000])
def test_a_weight_file_cut_short_is_named(size: int, package: Path) -> None:
    _weights(package).write_bytes(_weights(package).read_bytes()[:size])
    with pytest.raises(mil.BadPackage, match=r"weight\.bin"):
        mil.load(package).functions["main"].run(INPUT)


def test_a_missing_weight_file_is_named(package: Path) -> None:
    _weights(package).unlink()
    with pytest.raises(mil.BadPackage, match=r"weight\.bin"):
        mil.load(package).functions["main"].run(INPUT)


def test_an_overwritten_weight_record_is_named(package: Path) -> None:
    data = bytearray(_weights(package).read_bytes())
    data[64:68] = b"\0\0\0\0"
    _weights(package).write_bytes(data)
    with pytest.raises(mil.BadPackage, match=r"weight\.bin: no weight record at byte 64"):
        mil.load(package).functions["main"].run(INPUT)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "@model_path/../../../secret", "@model_path//etc/passwd", "weight.bin"]
)
def test_weights_outside_the_package_are_refused(name: str, package: Path) -> None:
    def edit(block: Any) -> None:
        for operation in block.operations:
            value = operation.attributes["val"] if operation.type == "const" else None
            if value is not None and value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = name

    _edit(package, edit)
    with pytest.raises(mil.BadPackage, match="outside the package"):
        mil.load(package).functions["main"].run(INPUT)


def test_a_link_that_leads_outside_is_refused(package: Path) -> None:
    outside = package.parent / "weight.bin"
    _weights(package).rename(outside)
    _weights(package).symlink_to(outside)
    with pytest.raises(mil.BadPackage, match="link"):
        mil.load(package).functions["main"].run(INPUT)


def test_an_offset_past_the_file_is_refused(package: Path) -> None:
    def edit(block: Any) -> None:
        for operation in block.operations:
            if operation.type == "const" and operation.attributes["val"].WhichOneof("value") == "blobFileValue":
                operation.attributes["val"].blobFileValue.offset = 1 << 40

    _edit(package, edit)
    with pytest.raises(mil.BadPackage, match="past the end"):
        mil.load(package).functions["main"].run(INPUT)


def test_an_unknown_op_is_named_with_the_value_it_makes(package: Path) -> None:
    def edit(block: Any) -> None:
        _op(block, "leaky_relu").type = "leaky_relu_of_tomorrow"

    _edit(package, edit)
    with pytest.raises(mil.UnknownOp) as caught:
        mil.load(package)
    assert caught.value.op_type == "leaky_relu_of_tomorrow"
    assert caught.value.value
    assert caught.value.value in str(caught.value)


def test_an_unknown_parameter_is_named(package: Path) -> None:
    def edit(block: Any) -> None:
        operation = _op(block, "leaky_relu")
        operation.inputs["gamma"].CopyFrom(operation.inputs["alpha"])

    _edit(package, edit)
    with pytest.raises(mil.UnknownOp, match="gamma"):
        mil.load(package)


def test_a_missing_parameter_is_named(package: Path) -> None:
    def edit(block: Any) -> None:
        del _op(block, "leaky_relu").inputs["alpha"]

    _edit(package, edit)
    with pytest.raises(mil.UnknownOp, match="alpha"):
        mil.load(package)


class Padded(nn.Module):
    """Padding, whose mode a test replaces."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (1, 1), mode="reflect")


def test_an_unknown_value_of_a_parameter_is_named(tmp_path: Path) -> None:
    path = convert(Padded(), (torch.zeros(1, 2, 4),), tmp_path / "pad.mlpackage")

    def edit(block: Any) -> None:
        for operation in block.operations:
            strings = operation.attributes["val"].immediateValue.tensor.strings if operation.type == "const" else None
            if strings is not None and list(strings.values) == ["reflect"]:
                strings.values[0] = "circular"

    _edit(path, edit)
    with pytest.raises(mil.UnknownOp, match="'circular'") as caught:
        mil.load(path).functions["main"].run({"x0": np.zeros((1, 2, 4))})
    assert caught.value.op_type == "pad"


def test_the_interpreter_stands_alone() -> None:
    for path in Path(mil.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in names if name.startswith("jtts_export")]
            assert all(name.startswith("jtts_export.mil") for name in ours), path
