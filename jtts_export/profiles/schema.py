"""Profiles: a target and the gates that an artifact for it must pass. TOML, validated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.runtime.names import COREML, COREML_INT8, VARIANT_SUFFIX

from . import web
from .allowed import KINDS, SCHEMES, check_schemes, refused_schemes
from .gates import ALL, OFF, OPERATORS, Gate, Gates, check_gates, merged, parse_gate
from .known import check_known
from .metrics import TABLE, is_timed, metrics_of

__all__ = [  # noqa: RUF022 - what others import from here, by file
    "Gate",
    "OPERATORS",
    "parse_gate",
    "check_schemes",
    "refused_schemes",
    "is_timed",
    "metrics_of",
    "METRICS",
    "Profile",
    "built_in",
    "load_profile",
    "rows",
]

# Every metric that a gate can name, and what it says.
METRICS = {name: metric.meaning for name, metric in TABLE.items()}

VARIANTS = tuple(v for v in VARIANT_SUFFIX if v != "fp32")  # fp32 is always made: the others are measured by it
MEASURED_ON = "onnxruntime", "CPUExecutionProvider"
PROVIDERS = {
    "onnxruntime": ("CPUExecutionProvider", "CoreMLExecutionProvider", "CUDAExecutionProvider"),
    "onnxruntime-web": ("wasm", "webgpu"),
    "coreml": ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"),
}

EXTENDS = "extends"
Names = Annotated[tuple[str, ...], Field(strict=False)]  # TOML and JSON have lists


class Profile(BaseModel):
    """A named target, with what its file extends folded in.

    runtime, provider: what the target runs graphs with. Measured is on MEASURED_ON, whatever they are, and so a
    profile of another has no gates of time.
    runtime_version: of onnxruntime-web, whose operators are known; None is the latest
    release among those.
    schemes: how weights may be held, by kind or by label; see allowed.py.
    variants: those that may be made beside fp32, which always is; default_variants: made where none is asked for.
    gates: model -> variant -> metric -> "OP LIMIT"; variant `all` applies to each but CoreML's; "off" under a variant
    takes a gate of `all` away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    runtime: Literal["onnxruntime", "onnxruntime-web", "coreml"] = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    runtime_version: str | None = None
    threads: PositiveInt = 2
    schemes: Names = KINDS
    variants: Names = VARIANTS
    default_variants: Names = ()
    gates: Gates

    @field_validator("gates")
    @classmethod
    def _gates_known(cls, gates: Gates) -> Gates:
        check_gates(gates)
        return gates

    @field_validator("schemes")
    @classmethod
    def _schemes_known(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        for scheme in schemes:
            check_known("scheme", scheme, SCHEMES)
        return schemes

    @field_validator("variants", "default_variants")
    @classmethod
    def _variants_known(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        for variant in variants:
            check_known("variant", variant, VARIANTS)
        return variants

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        check_known("provider", self.provider, PROVIDERS[self.runtime], f"of {self.runtime}", "provider")
        for variant in self.default_variants:
            check_known("variant", variant, self.variants, "of this profile", "default_variants")
        if self.runtime_version is not None:
            if self.runtime != "onnxruntime-web":
                raise ValueError("runtime_version: only versions of onnxruntime-web are told apart")
            check_known("version", self.runtime_version, web.known(), f"of {self.runtime}", "runtime_version")
        if (self.runtime, self.provider) != MEASURED_ON:
            self._check_untimed()
        return self

    def _check_untimed(self) -> None:
        for model, variants in self.gates.items():
            for variant, limits in variants.items():
                for metric in limits:
                    if is_timed(metric):
                        raise ValueError(
                            f"gates.{model}.{variant}.{metric}: times are measured with {' and '.join(MEASURED_ON)}, "
                            f"and say nothing of {self.runtime} and {self.provider}"
                        )

    def gates_for(self, model: str, variant: str) -> list[Gate]:
        """The gates of a variant, in order; a limit of its own replaces one under `all`, and "off" takes it away.
        Packages of CoreML are measured otherwise, and have their own alone."""
        variants = self.gates.get(model, {})
        common = {} if variant in (COREML, COREML_INT8) else variants.get(ALL, {})
        limits = {**common, **variants.get(variant, {})}
        return [parse_gate(metric, limit) for metric, limit in limits.items() if limit != OFF]

    def is_timed(self, model: str, variants: Iterable[str]) -> bool:
        """Whether a gate of one of these variants is of time."""
        return any(is_timed(gate.metric) for variant in variants for gate in self.gates_for(model, variant))

    def variants_for(self, model: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Those to make of a model beside fp32: what was asked for, or else the default ones that it has. Raises
        BadInput where the profile does not allow one."""
        for variant in asked:
            if variant not in self.variants:
                known = ", ".join(self.variants) or "fp32 alone"
                raise BadInput(f"profile {self.name} has no variant '{variant}'; variants: {known}")
        return tuple(asked) or tuple(v for v in MODELS[model].variants if v in self.default_variants)


def rows(profile: Profile) -> list[tuple[str, str, str, str, str]]:
    """(model, variant, metric, limit, meaning) of every gate, with what the profile extends folded in."""
    return [
        (model, variant, metric, limit, METRICS[metric])
        for model, variants in profile.gates.items()
        for variant, limits in variants.items()
        for metric, limit in limits.items()
    ]


def built_in() -> dict[str, Path]:
    """Name -> file of the profiles that come with the package."""
    return {p.stem: p for p in sorted(Path(__file__).parent.glob("*.toml"))}


def load_profile(name: str) -> Profile:
    """A built-in profile, or one from a .toml file, over what it extends. Raises BadInput naming the key at fault."""
    path = built_in().get(name) or Path(name)
    if not _is_file(path):
        raise BadInput(f"no profile '{name}'; built in: {', '.join(built_in())}, or a .toml file")
    return _load(path, ())


def _load(path: Path, trail: tuple[Path, ...]) -> Profile:
    """trail: the files that extend this one."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"profile {path.name} cannot be read: {error}") from error
    name = content.pop(EXTENDS, None)
    if name is None:
        return _validated(path, content)
    trail = (*trail, path.resolve())
    base = _extended(path, name)
    if base.resolve() in trail:
        names = " -> ".join(p.name for p in (*trail, base))
        raise BadInput(f"profile {path.name}: {EXTENDS}: a circle: {names}")
    inherited = _load(base, trail).model_dump(exclude_unset=True, exclude={"name", "description"})
    gates = content.get("gates", {})
    if _is_nested(gates):
        gates = merged(inherited["gates"], gates)
    return _validated(path, {**inherited, **content, "gates": gates})


def _is_nested(gates: Any) -> bool:
    return isinstance(gates, dict) and all(
        isinstance(of, dict) and all(isinstance(limits, dict) for limits in of.values()) for of in gates.values()
    )


def _extended(path: Path, name: object) -> Path:
    """The file that `path` extends: a built-in profile, or one in the folder that it lies in itself."""
    where = f"profile {path.name}: {EXTENDS}: "
    if not isinstance(name, str):
        raise BadInput(f"{where}'{name}' is not the name of a profile")
    if name in built_in():
        return built_in()[name]
    try:
        folder, base = path.resolve().parent, (path.resolve().parent / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL in the name
        raise BadInput(f"{where}'{name}' cannot be read: {error}") from error
    if not base.is_relative_to(folder):
        raise BadInput(f"{where}'{name}' lies outside of this profile's folder")
    if not _is_file(base):
        raise BadInput(f"{where}no profile '{name}'; built in: {', '.join(built_in())}, or a .toml file beside it")
    return base


def _is_file(path: Path) -> bool:
    try:
        return path.suffix == ".toml" and path.is_file()
    except OSError:  # a name that is too long
        return False


def _validated(path: Path, content: Mapping[str, Any]) -> Profile:
    try:
        return Profile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            said = _unknown_key(where)
        elif where and not said.startswith(where):
            said = f"{where}: {said}"
        raise BadInput(f"profile {path.name}: {said}") from error


def _unknown_key(key: str) -> str:
    try:
        check_known("key", key, (*Profile.model_fields, EXTENDS))
    except ValueError as error:
        return str(error)
    raise AssertionError(key)
