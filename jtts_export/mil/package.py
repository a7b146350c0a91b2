"""Packages on disk: the manifest, the model file, its description and its functions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jtts_export.mil.blobs import BlobFiles
from jtts_export.mil.constants import Constants
from jtts_export.mil.errors import BadPackage
from jtts_export.mil.function import Function
from jtts_export.mil.program import compile_function
from jtts_export.mil.types import Dim, DimRange, TensorType, dims_of, dtype_of


@dataclass(frozen=True)
class Metadata:
    """What a package says of itself; empty texts where it says nothing."""

    short_description: str
    author: str
    licence: str
    version: str
    user_defined: dict[str, str]


@dataclass(frozen=True)
class Package:
    """A package that was read: its functions by name, the name of the default one, and its metadata."""

    path: Path
    spec_version: int
    metadata: Metadata
    functions: dict[str, Function]
    default_function: str


def load(path: str | Path, *, cache_bytes: int = 8 << 30) -> Package:
    """Reads the package folder `path` (.mlpackage with an mlprogram) as it is on disk.

    Weights are mapped, and decoded on first use; at most `cache_bytes` of decoded and dequantized weights are
    kept for the next run. Raises `BadPackage` naming the file that is damaged or missing, and `UnknownOp` for a
    program with an op that this interpreter does not define.
    """
    path = Path(path)
    model_path = _model_path(path)
    model = _read_model(model_path)
    constants = Constants(BlobFiles(model_path.parent), cache_bytes)
    description = model.description
    features = {item.name: item for item in description.functions}
    program = model.mlProgram
    functions = {
        name: _function(name, program.functions[name], features.get(name, description), constants)
        for name in program.functions
    }
    default = description.defaultFunctionName or "main"
    if default not in functions:
        raise BadPackage(f"{model_path}: the default function {default!r} is not in the program")
    return Package(path, model.specificationVersion, _metadata(description.metadata), functions, default)


def _model_path(path: Path) -> Path:
    manifest = path / "Manifest.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        item = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadPackage(f"{manifest}: not a package's manifest: {error!r}") from error
    data = path / "Data"
    if not isinstance(item, str) or not (data / item).resolve().is_relative_to(data.resolve()):
        raise BadPackage(f"{manifest}: the model's path leads outside the package: {item!r}")
    return data / item


def _read_model(path: Path) -> Any:
    # Imported here: coremltools takes seconds to import.
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise BadPackage(f"{path}: not a Core ML model: {error}") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise BadPackage(f"{path}: holds a {model.WhichOneof('Type')}, not an mlProgram")
    return model


def _metadata(metadata: Any) -> Metadata:
    return Metadata(
        metadata.shortDescription,
        metadata.author,
        metadata.license,
        metadata.versionString,
        dict(metadata.userDefined),
    )


def _function(name: str, function: Any, features: Any, constants: Constants) -> Function:
    described = {item.name: item.type for item in (*features.input, *features.state)}
    inputs: dict[str, TensorType] = {}
    states: dict[str, TensorType] = {}
    for named in function.inputs:
        if named.type.WhichOneof("type") == "stateType":
            states[named.name] = _tensor_type(named.type.stateType.wrappedType.tensorType, None)
        else:
            inputs[named.name] = _tensor_type(named.type.tensorType, described.get(named.name))
    program = compile_function(function)
    outputs = {}
    for output in program.block.outputs:
        made = program.outputs.get(output)
        outputs[output] = TensorType(made.dtype.name, made.shape) if made else inputs[output]
    return Function(name, inputs, outputs, states, program, constants)


def _tensor_type(tensor_type: Any, feature: Any) -> TensorType:
    dims = dims_of(tensor_type)
    dtype = dtype_of(tensor_type.dataType).name
    if feature is None or feature.WhichOneof("Type") != "multiArrayType":
        return TensorType(dtype, dims)
    array = feature.multiArrayType
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        shapes = tuple(tuple(shape.shape) for shape in array.enumeratedShapes.shapes)
        return TensorType(dtype, dims, shapes)
    if flexibility == "shapeRange":
        ranges = array.shapeRange.sizeRanges
        return TensorType(dtype, tuple(_dim(dim, limits) for dim, limits in zip(dims, ranges, strict=True)))
    return TensorType(dtype, dims)


def _dim(dim: int | None, limits: Any) -> Dim:
    if dim is not None:
        return dim
    return DimRange(limits.lowerBound, limits.upperBound if limits.upperBound >= 0 else None)
