"""Schemes that a profile allows."""

from __future__ import annotations

import pytest

from jtts_export.errors import BadInput
from jtts_export.profiles.allowed import KINDS, SCHEMES, check_schemes, refused_schemes
from jtts_export.profiles.schema import Profile
from jtts_export.quantize.schemes import (
    BlockMatMul,
    DynamicMatMul,
    Float32,
    Recipe,
    Rule,
    Scheme,
    StaticConv,
    StoredFp16,
    StoredInt,
    label,
)


def profile(*schemes: str) -> Profile:
    return Profile(name="mine", description="a test", schemes=schemes, gates={})


def recipe(*schemes: Scheme, key_values: str = "float32") -> Recipe:
    rules = [{"pattern": f"{i}.*", "scheme": scheme} for i, scheme in enumerate(schemes)]
    return Recipe.model_validate({"rules": rules, "key_values": key_values})


EVERY = [StaticConv(), DynamicMatMul(), BlockMatMul(), BlockMatMul(block=64, bits=4), StoredInt(bits=4), StoredFp16()]


def test_every_scheme_has_its_names() -> None:
    assert {label(scheme) for scheme in EVERY} | {scheme.kind for scheme in EVERY} <= set(SCHEMES)
    assert "float32" not in SCHEMES


def test_without_a_word_everything_is_allowed() -> None:
    assert Profile(name="mine", description="a test", gates={}).schemes == KINDS
    assert refused_schemes(profile(*KINDS), recipe(*EVERY, key_values="int8")) == []


def test_a_kind_allows_every_form_of_it_and_a_label_one() -> None:
    used = recipe(BlockMatMul(), BlockMatMul(block=64, bits=4), StoredInt(bits=4))
    assert refused_schemes(profile("block-matmul"), used) == ["stored-int4"]
    assert refused_schemes(profile("block-matmul32"), used) == ["block-matmul64-int4", "stored-int4"]
    assert refused_schemes(profile("stored-int"), used) == ["block-matmul32", "block-matmul64-int4"]


def test_keys_and_values_in_8_bits_are_allowed_apart() -> None:
    assert refused_schemes(profile("stored-int"), recipe(StoredInt(), key_values="int8")) == ["key-values-int8"]
    assert refused_schemes(profile("stored-int", "key-values-int8"), recipe(StoredInt(), key_values="int8")) == []


def test_what_is_left_alone_needs_no_leave() -> None:
    assert refused_schemes(profile(), Recipe(rules=(Rule(pattern="*", scheme=Float32()),))) == []


def test_a_recipe_is_refused_in_one_line() -> None:
    used = recipe(DynamicMatMul(), DynamicMatMul(), StoredFp16())
    check_schemes(profile("dynamic-matmul", "stored-fp16"), "int8", used)
    with pytest.raises(BadInput) as error:
        check_schemes(profile("stored-fp16"), "int8", used)
    expected = "profile mine: int8 uses dynamic-matmul, which it does not allow; schemes: stored-fp16"
    assert str(error.value) == expected
