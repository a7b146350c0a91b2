"""Gates: a metric and the limit it must keep, and what a profile may say of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from jtts_export.models import MODELS
from jtts_export.runtime.names import COREML, COREML_INT8

from .known import check_known
from .metrics import TABLE, metrics_of

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}
ALL = "all"  # in the place of a variant: each
OFF = "off"  # in the place of a limit: none

Gates = dict[str, dict[str, dict[str, str]]]  # model -> variant -> metric -> "OP LIMIT"


@dataclass(frozen=True)
class Gate:
    """A metric and the limit it must keep."""

    metric: str
    op: str
    limit: float

    def passes(self, metrics: Mapping[str, float]) -> bool:
        """False as well where the metric was not measured or is NaN."""
        value = metrics.get(self.metric)
        return value is not None and bool(OPERATORS[self.op](value, self.limit))

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.limit:g}"


def parse_gate(metric: str, limit: str) -> Gate:
    """`parity_f0_snr_db`, `>= 20` -> Gate. Raises ValueError listing what is known."""
    check_known("metric", metric, TABLE)
    op, _, number = limit.partition(" ")
    try:
        if op not in OPERATORS or not math.isfinite(float(number)):
            raise ValueError
        return Gate(metric, op, float(number))
    except ValueError:
        known = ", ".join(OPERATORS)
        raise ValueError(f"{metric}: '{limit}' is not a limit such as '>= 20'; operators: {known}") from None


def check_gates(gates: Gates) -> None:
    """Every gate is one that its model can have, and every "off" takes a gate of `all` away. Raises ValueError naming
    the key at fault and what it could be."""
    for model, variants in gates.items():
        check_known("model", model, MODELS, where="gates")
        for variant, limits in variants.items():
            known = (ALL, "fp32", *MODELS[model].variants, COREML, COREML_INT8)
            check_known("variant", variant, known, f"of {model}", f"gates.{model}")
            where = f"gates.{model}.{variant}"
            for metric, limit in limits.items():
                check_known("metric", metric, metrics_of(model), f"of {model}", where)
                if limit != OFF:
                    _check_limit(where, metric, limit)
                elif variant == ALL or metric not in variants.get(ALL, {}):
                    raise ValueError(f"{where}.{metric}: there is no gate to be switched off")


def _check_limit(where: str, metric: str, limit: str) -> None:
    try:
        parse_gate(metric, limit)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None


def merged(base: Gates, own: Gates) -> Gates:
    """`own` over `base`, gate by gate. "off" takes a gate of `base` away. A limit of `all` leaves those alone that
    `base` has for single variants."""
    result = {model: {variant: dict(limits) for variant, limits in of.items()} for model, of in base.items()}
    for model, variants in own.items():
        of_model = result.setdefault(model, {})
        common = of_model.setdefault(ALL, {})
        for metric, limit in variants.get(ALL, {}).items():
            if limit == OFF and metric in common:
                del common[metric]
                for limits in of_model.values():
                    if limits.get(metric) == OFF:
                        del limits[metric]
            else:
                common[metric] = limit
        for variant, limits in variants.items():
            if variant != ALL:
                _put(of_model.setdefault(variant, {}), limits, common)
    return result


def _put(into: dict[str, str], limits: Mapping[str, str], common: Mapping[str, str]) -> None:
    for metric, limit in limits.items():
        if limit == OFF and metric in into and metric not in common:
            del into[metric]
        else:
            into[metric] = limit
