"""Schemes: one way each to hold a weight, as data; and recipes: which weight gets which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from glob import escape
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SMALLEST_BLOCK: Literal[32] = 32


class _Scheme(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StaticConv(_Scheme):
    """int8 arithmetic: u8 activations and s8 weights, both scaled from calibration, as Q/DQ around a Conv.

    table_levels: resolution of the table that replaces a snake activation ahead of the Conv; 0 keeps the
    activation in float. channels: a scale for each output channel; one for all of them is faster, and as good where
    all are alike.
    """

    kind: Literal["static-conv"] = "static-conv"
    channels: bool = True
    table_levels: int = Field(default=1024, ge=0, le=1 << 16)


class DynamicMatMul(_Scheme):
    """int8 arithmetic: s8 weights scaled per output, u8 activations scaled as they come, one scale a product.

    The fastest on a CPU; a few outlying activations cost it its precision.
    """

    kind: Literal["dynamic-matmul"] = "dynamic-matmul"


class BlockMatMul(_Scheme):
    """int8 arithmetic: 8-bit activations and weights, or weights of 4, scaled per block of inputs (MatMulNBits)."""

    kind: Literal["block-matmul"] = "block-matmul"
    block: Literal[16, 32, 64, 128, 256] = 32
    bits: Literal[4, 8] = 8


class StoredInt(_Scheme):
    """fp32 arithmetic on weights stored as integers with a scale per output channel, unfolded at load."""

    kind: Literal["stored-int"] = "stored-int"
    bits: Literal[4, 8] = 8


class StoredFp16(_Scheme):
    """fp32 arithmetic on weights stored as fp16, unfolded at load."""

    kind: Literal["stored-fp16"] = "stored-fp16"


class Float32(_Scheme):
    """Left alone."""

    kind: Literal["float32"] = "float32"


Scheme = Annotated[
    StaticConv | DynamicMatMul | BlockMatMul | StoredInt | StoredFp16 | Float32, Field(discriminator="kind")
]


class Rule(_Scheme):
    """Weights whose name matches `pattern` (shell wildcards) get `scheme`. Where `below` is given, only those of
    fewer elements: of a small weight few bits save little."""

    pattern: str
    scheme: Scheme
    below: int | None = None

    @classmethod
    def of_one(cls, weight: str, scheme: Scheme) -> Rule:
        """For the weight of this name, even where it holds wildcards."""
        return cls(pattern=escape(weight), scheme=scheme)


class Recipe(_Scheme):
    """Rules in order: the first that matches a weight decides. A weight that none matches stays fp32.

    key_values: how keys and values of earlier positions are held, in graphs that take and give them.
    """

    rules: tuple[Rule, ...]
    key_values: Literal["float32", "int8"] = "float32"

    def for_sizes(self, sizes: Mapping[str, int]) -> Recipe:
        """The same for weights of these sizes (elements, by name), without a rule that asks for one."""
        rules: list[Rule] = []
        for rule in self.rules:
            if rule.below is None:
                rules.append(rule)
                continue
            small = [w for w, size in sorted(sizes.items()) if size < rule.below and fnmatchcase(w, rule.pattern)]
            rules += [Rule.of_one(weight, rule.scheme) for weight in small]
        return self.model_copy(update={"rules": tuple(rules)})

    def scheme_of(self, weight: str) -> Scheme:
        return next((r.scheme for r in self.rules if fnmatchcase(weight, r.pattern)), Float32())

    def with_promoted(self, weights: Iterable[str]) -> Recipe:
        """Each of `weights` one step up the ladder."""
        rules = tuple(Rule.of_one(w, promoted(self.scheme_of(w))) for w in sorted(weights))
        names = {r.pattern for r in rules}
        return self.model_copy(update={"rules": rules + tuple(r for r in self.rules if r.pattern not in names)})


def label(scheme: Scheme) -> str:
    """A scheme in a word, for reports: `static-conv`, `block-matmul32`, `block-matmul32-int4`, `stored-int4`."""
    if isinstance(scheme, BlockMatMul):
        return f"{scheme.kind}{scheme.block}" + ("-int4" if scheme.bits == 4 else "")
    return f"{scheme.kind}{scheme.bits if isinstance(scheme, StoredInt) else ''}"


def promoted(scheme: Scheme) -> Scheme:
    """The next more precise scheme on the ladder: int8 products by block, small blocks, fp16 storage; 4 bits, 8
    bits or int8 convolutions, fp16 storage; fp32."""
    if isinstance(scheme, StoredInt) and scheme.bits == 4:
        return StoredInt()
    if isinstance(scheme, BlockMatMul) and scheme.bits == 4:
        return BlockMatMul(block=scheme.block)
    if isinstance(scheme, DynamicMatMul) or (isinstance(scheme, BlockMatMul) and scheme.block > SMALLEST_BLOCK):
        return BlockMatMul(block=SMALLEST_BLOCK)
    return Float32() if isinstance(scheme, StoredFp16 | Float32) else StoredFp16()
