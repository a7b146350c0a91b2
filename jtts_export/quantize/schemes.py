"""Schemes: one way each to hold a weight, as data; and recipes: which weight gets which."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Scheme(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StaticConv(_Scheme):
    """int8 arithmetic: u8 activations and s8 weights, both scaled from calibration, as Q/DQ around a Conv.

    table_levels: resolution of the table that replaces a snake activation ahead of the Conv; 0 keeps the
    activation in float.
    """

    kind: Literal["static-conv"] = "static-conv"
    table_levels: int = Field(default=2048, ge=0, le=1 << 16)


class StoredInt8(_Scheme):
    """fp32 arithmetic on weights stored as int8 with a scale per output channel, unfolded at load."""

    kind: Literal["stored-int8"] = "stored-int8"


class StoredFp16(_Scheme):
    """fp32 arithmetic on weights stored as fp16, unfolded at load."""

    kind: Literal["stored-fp16"] = "stored-fp16"


class Float32(_Scheme):
    """Left alone."""

    kind: Literal["float32"] = "float32"


Scheme = Annotated[StaticConv | StoredInt8 | StoredFp16 | Float32, Field(discriminator="kind")]


class Rule(_Scheme):
    """Weights whose name matches `pattern` (shell wildcards) get `scheme`."""

    pattern: str
    scheme: Scheme


class Recipe(_Scheme):
    """Rules in order: the first that matches a weight decides. A weight that none matches stays fp32."""

    rules: tuple[Rule, ...]

    def scheme_of(self, weight: str) -> Scheme:
        return next((r.scheme for r in self.rules if fnmatchcase(weight, r.pattern)), Float32())

    def with_promoted(self, weights: Iterable[str]) -> Recipe:
        """Each of `weights` one step up: int8 to fp16 storage, fp16 storage to fp32."""
        rules = tuple(Rule(pattern=w, scheme=promoted(self.scheme_of(w))) for w in sorted(weights))
        names = {r.pattern for r in rules}
        return Recipe(rules=rules + tuple(r for r in self.rules if r.pattern not in names))


def promoted(scheme: Scheme) -> Scheme:
    """The next more precise scheme on the ladder."""
    return StoredFp16() if isinstance(scheme, StaticConv | StoredInt8) else Float32()


RECIPE = TypeAdapter(Recipe)
