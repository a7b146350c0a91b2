"""Rules that ask for a weight's size."""

from __future__ import annotations

from jtts_export.quantize.schemes import Float32, Recipe, Rule, StoredFp16, StoredInt

RECIPE = Recipe(
    rules=(
        Rule(pattern="*.exact", scheme=Float32()),
        Rule(pattern="f0.*", scheme=StoredFp16(), below=100),
        Rule(pattern="*", scheme=StoredInt(bits=4)),
    )
)


def test_a_rule_for_small_weights_leaves_those_of_its_limit_alone() -> None:
    fitted = RECIPE.for_sizes({"f0.small": 99, "f0.limit": 100, "n.small": 1})
    assert fitted.scheme_of("f0.small") == StoredFp16()
    assert fitted.scheme_of("f0.limit") == StoredInt(bits=4)
    assert fitted.scheme_of("n.small") == StoredInt(bits=4)


def test_order_of_rules_stays() -> None:
    assert RECIPE.for_sizes({"f0.exact": 1}).scheme_of("f0.exact") == Float32()


def test_wildcards_in_a_name_are_letters() -> None:
    fitted = RECIPE.for_sizes({"f0.[ab]": 1, "f0.a": 1000})
    assert fitted.scheme_of("f0.[ab]") == StoredFp16()
    assert fitted.scheme_of("f0.a") == StoredInt(bits=4)


def test_what_is_recorded_asks_for_no_size() -> None:
    fitted = RECIPE.for_sizes({"f0.small": 1})
    assert all(rule.below is None for rule in fitted.rules)
    assert Recipe.model_validate(fitted.model_dump()).for_sizes({}) == fitted
