"""Stages to packages: traced, converted by coremltools, and written so that the same weights give the same bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jtts_export.errors import OutsideError

from . import state_writes
from .stage import MAIN, Function, Length, Stage, Target, Tensor

MISSING = "CoreML needs coremltools: pip install jtts-export[coreml]"
SUFFIX = ".mlpackage"
SPEC = Path("Data") / "com.apple.CoreML" / "model.mlmodel"
WEIGHTS = Path("Data") / "com.apple.CoreML" / "weights"
UNIQUE = uuid.UUID("2b0f2f9e-0c1d-5a53-9c52-6b8c3a9f3f1e")  # namespace of the identifiers in Manifest.json
DATE = "com.github.apple.coremltools.conversion_date"


@dataclass(frozen=True)
class About:
    """What a package says of its origin."""

    title: str
    author: str
    licence: str
    version: str


def check_installed() -> None:
    """Quickly. Raises OutsideError where the extra is missing."""
    if find_spec("coremltools") is None:
        raise OutsideError(MISSING)


def coremltools() -> Any:
    """The library, without what it prints when it is imported. Raises OutsideError where it does not work here."""
    try:
        with quiet():
            import coremltools as ct
            import coremltools.libmilstoragepython  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise OutsideError(MISSING) from error
    return ct


def convert(stage: Stage, target: Target, folder: Path) -> dict[str, Path]:
    """A package for each function of a stage, below a folder: function -> path. See assemble()."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for name, function in stage.functions.items():
        parts[name] = folder / f"{stage.name}.{name}{SUFFIX}"
        _converted(stage, function, target).save(str(parts[name]))
    return parts


def assemble(stage: Stage, parts: Mapping[str, Path], folder: Path, about: About) -> Path:
    """One package of all functions, which share weights that are equal, with descriptions. Returns its path."""
    ct = coremltools()
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / f"{stage.name}{SUFFIX}"
    shutil.rmtree(package, ignore_errors=True)
    if list(parts) == [MAIN]:
        shutil.copytree(parts[MAIN], package)
    else:
        joined = ct.utils.MultiFunctionDescriptor()
        for name, part in parts.items():
            joined.add_function(str(part), src_function_name=MAIN, target_function_name=name)
        joined.default_function_name = next(iter(parts))
        with quiet():
            ct.utils.save_multifunction(joined, str(package))
    _describe(package, stage, about)
    _settle_identifiers(package)
    return package


def _converted(stage: Stage, function: Function, target: Target) -> Any:
    import torch

    ct = coremltools()
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(
            function.module.eval(), tuple(_example(tensor) for tensor in function.inputs), check_trace=False
        )
        precision = {"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}[stage.precision]
        return ct.convert(
            traced,
            convert_to="mlprogram",
            inputs=[_input(ct, tensor) for tensor in function.inputs],
            outputs=[ct.TensorType(name=t.name, dtype=_dtype(t)) for t in function.outputs],
            states=[
                ct.StateType(wrapped_type=ct.TensorType(shape=t.shape, dtype=_dtype(t)), name=t.name)
                for t in function.states
            ]
            or None,
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=precision,
            skip_model_load=True,
            pass_pipeline=state_writes.pipeline(ct),
        )


def _input(ct: Any, tensor: Tensor) -> Any:
    shape = [
        ct.RangeDim(lower_bound=size.least, upper_bound=size.most, default=size.example)
        if isinstance(size, Length)
        else size
        for size in tensor.shape
    ]
    return ct.TensorType(name=tensor.name, shape=shape, dtype=_dtype(tensor))


def _dtype(tensor: Tensor) -> Any:
    import numpy as np

    return {"fp32": np.float32, "fp16": np.float16, "int32": np.int32}[tensor.dtype]


def _example(tensor: Tensor) -> Any:
    import torch

    shape = [size.example if isinstance(size, Length) else int(size) for size in tensor.shape]
    return torch.ones(shape, dtype=torch.int32 if tensor.dtype == "int32" else torch.float32)


def _describe(package: Path, stage: Stage, about: About) -> None:
    """Texts of every tensor and of the whole; and no date."""
    ct = coremltools()
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString((package / SPEC).read_bytes())
    named = {f.name: f for f in spec.description.functions} or {MAIN: spec.description}
    for name, function in stage.functions.items():
        texts = {t.name: t.description for t in (*function.inputs, *function.outputs, *function.states)}
        for feature in (*named[name].input, *named[name].output, *named[name].state):
            feature.shortDescription = texts[feature.name]
    metadata = spec.description.metadata
    metadata.shortDescription = f"{about.title}: {stage.description}"
    metadata.author, metadata.license, metadata.versionString = about.author, about.licence, about.version
    metadata.userDefined.pop(DATE, None)
    (package / SPEC).write_bytes(spec.SerializeToString(deterministic=True))


def _settle_identifiers(package: Path) -> None:
    """coremltools draws identifiers at random; make them from what they stand for."""
    path = package / "Manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    names = {
        old: str(uuid.uuid5(UNIQUE, entry["path"])).upper() for old, entry in manifest["itemInfoEntries"].items()
    }
    entries = {names[old]: entry for old, entry in manifest["itemInfoEntries"].items()}
    manifest["itemInfoEntries"] = dict(sorted(entries.items()))
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without coremltools' progress bars, and its notes on versions that were not tested."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryFile("w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
