"""Which schemes a profile allows: named by kind, or by the label that says more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from jtts_export.errors import BadInput
from jtts_export.quantize.schemes import BlockMatMul, Float32, Recipe, Scheme, StoredInt, label

if TYPE_CHECKING:
    from .schema import Profile

KEY_VALUES = "key-values-int8"  # of a recipe, not of a weight

# float32 is not among them: it is what every weight has before anything is done.
KINDS = (*(kind().kind for kind in get_args(get_args(Scheme)[0]) if kind is not Float32), KEY_VALUES)


def _labels() -> Iterator[str]:
    for bits in get_args(StoredInt.model_fields["bits"].annotation):
        yield label(StoredInt(bits=bits))
    for bits in get_args(BlockMatMul.model_fields["bits"].annotation):
        for block in get_args(BlockMatMul.model_fields["block"].annotation):
            yield label(BlockMatMul(block=block, bits=bits))


SCHEMES = (*KINDS, *_labels())


def refused_schemes(profile: Profile, recipe: Recipe) -> list[str]:
    """Labels of a recipe's schemes that the profile does not allow, in the recipe's order, each once."""
    used: dict[str, str] = {
        label(rule.scheme): rule.scheme.kind for rule in recipe.rules if not isinstance(rule.scheme, Float32)
    }
    if recipe.key_values == "int8":
        used[KEY_VALUES] = KEY_VALUES
    return [name for name, kind in used.items() if not {name, kind} & set(profile.schemes)]


def check_schemes(profile: Profile, variant: str, recipe: Recipe) -> None:
    """Raises BadInput where a variant's recipe holds weights in a way that the profile does not allow."""
    if refused := refused_schemes(profile, recipe):
        raise BadInput(
            f"profile {profile.name}: {variant} uses {', '.join(refused)}, which it does not allow; "
            f"schemes: {', '.join(profile.schemes) or 'none'}"
        )
