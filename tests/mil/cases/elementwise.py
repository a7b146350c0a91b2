"""Cases of elementwise ops and activations; references in numpy's float64."""

import math
from collections.abc import Callable, Iterator

import coremltools as ct
import numpy as np
from mil.programs import Array, Case
from scipy import special

RNG = np.random.default_rng(0)
ALPHA, BETA = np.float32(0.3), np.float32(1.7)


def _floats(*shape: int, low: float = -3, high: float = 3) -> Array:
    return RNG.uniform(low, high, shape).astype(np.float32)


def _ints(*shape: int, low: int = -9, high: int = 9) -> Array:
    return RNG.integers(low, high, shape).astype(np.int32)


HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49], np.float32)

UNARY: dict[str, tuple[Callable[[Array], Array], Array]] = {
    "abs": (np.abs, _floats(2, 3)),
    "ceil": (np.ceil, _floats(5)),
    "floor": (np.floor, _floats(5)),
    "round": (np.round, HALVES),
    "sign": (np.sign, np.array([-2.0, 0.0, 3.0], np.float32)),
    "square": (np.square, _floats(2, 3)),
    "sqrt": (np.sqrt, _floats(4, low=0)),
    "exp": (np.exp, _floats(4)),
    "exp2": (np.exp2, _floats(4)),
    "erf": (special.erf, _floats(4)),
    "sin": (np.sin, _floats(4)),
    "cos": (np.cos, _floats(4)),
    "tan": (np.tan, _floats(4, low=-1, high=1)),
    "asin": (np.arcsin, _floats(4, low=-1, high=1)),
    "acos": (np.arccos, _floats(4, low=-1, high=1)),
    "atan": (np.arctan, _floats(4)),
    "sinh": (np.sinh, _floats(4)),
    "cosh": (np.cosh, _floats(4)),
    "tanh": (np.tanh, _floats(4)),
    "atanh": (np.arctanh, _floats(4, low=-0.9, high=0.9)),
    "identity": (lambda x: x, _floats(2, 3)),
    "logical_not": (np.logical_not, np.array([True, False])),
    "relu": (lambda x: np.maximum(x, 0), _floats(2, 3)),
    "relu6": (lambda x: np.clip(x, 0, 6), _floats(6, low=-4, high=9)),
    "sigmoid": (special.expit, _floats(4)),
    "silu": (lambda x: x * special.expit(x), _floats(4)),
    "softplus": (lambda x: np.logaddexp(0, x), np.array([-200.0, -1.0, 0.0, 2.0, 200.0], np.float32)),
    "softsign": (lambda x: x / (1 + np.abs(x)), _floats(4)),
}

# With the sign rules of Python's // and %, and integer division toward zero.
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "real_div": lambda x, y: np.trunc(x / y).astype(np.int32) if x.dtype == np.int32 else x / y,
    "floor_div": np.floor_divide,
    "mod": np.mod,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}


def cases() -> Iterator[Case]:
    """All elementwise cases."""
    for op, (function, x) in UNARY.items():
        wide = x if x.dtype == np.bool_ else x.astype(np.float64)
        yield Case(op, {"x": x}, (function(wide),))
    for op, function in BINARY.items():
        yield from _binary(op, function)
    yield from _logic()
    yield from _with_constants()
    yield from _activations()
    yield from _casts()


def _binary(op: str, function: Callable[[Array, Array], Array]) -> Iterator[Case]:
    x, y = _floats(2, 1, 3), _floats(4, 1)
    yield Case(op, {"x": x, "y": y}, (function(x, y),))
    numerator = _ints(3, 4)
    denominator = np.where(_ints(3, 4) < 0, -2, 3).astype(np.int32)
    yield Case(op, {"x": numerator, "y": denominator}, (function(numerator, denominator),))


def _logic() -> Iterator[Case]:
    left, right = np.array([True, True, False, False]), np.array([True, False, True, False])
    for op, function in {
        "logical_and": np.logical_and,
        "logical_or": np.logical_or,
        "logical_xor": np.logical_xor,
    }.items():
        yield Case(op, {"x": left, "y": right}, (function(left, right),))


def _with_constants() -> Iterator[Case]:
    x = _floats(3, 4)
    positive = np.abs(x) + np.float32(0.1)
    exponent = _floats(1, 4)
    yield Case("pow", {"x": positive, "y": exponent}, (positive.astype(np.float64) ** exponent,))
    yield Case("pow", {"x": x}, (x.astype(np.float64) ** 3,), {"y": np.float32(3)})
    yield Case("clip", {"x": x}, (np.clip(x, -1, 1),), {"alpha": np.float32(-1), "beta": np.float32(1)})
    yield Case("threshold", {"x": x}, (np.maximum(x, 0.5),), {"alpha": np.float32(0.5)})
    yield Case("inverse", {"x": positive}, (1 / (positive.astype(np.float64) + 1e-4),))
    yield Case("inverse", {"x": positive}, (1 / (positive + 0.5),), {"epsilon": np.float32(0.5)})
    yield Case("rsqrt", {"x": positive}, (1 / np.sqrt(positive.astype(np.float64)),))
    yield Case("rsqrt", {"x": positive}, (1 / np.sqrt(positive + 0.5),), {"epsilon": np.float32(0.5)})
    yield Case("log", {"x": positive}, (np.log(positive.astype(np.float64)),))
    # The smallest number above 0 that float32 has: its log stands for the log of 0.
    zero = np.zeros(2, np.float32)
    yield Case("log", {"x": zero}, (np.full(2, math.log(2.0**-149)),))
    yield Case("log", {"x": positive}, (np.log(positive + 0.5),), {"epsilon": np.float32(0.5)})


def _activations() -> Iterator[Case]:
    x = _floats(2, 3, 4).astype(np.float32)
    wide = x.astype(np.float64)
    alpha, both = {"alpha": ALPHA}, {"alpha": ALPHA, "beta": BETA}
    channels = np.array([0.1, 0.1, 0.1], np.float32)
    yield Case("elu", {"x": x}, (np.where(wide > 0, wide, ALPHA * np.expm1(wide)),), alpha)
    yield Case("leaky_relu", {"x": x}, (np.where(wide >= 0, wide, ALPHA * wide),), alpha)
    yield Case("thresholded_relu", {"x": x}, (np.where(wide >= ALPHA, wide, 0),), alpha)
    yield Case("clamped_relu", {"x": x}, (np.minimum(np.where(wide >= 0, wide, ALPHA * wide), BETA),), both)
    yield Case("linear_activation", {"x": x}, (ALPHA * wide + BETA,), both)
    yield Case("scaled_tanh", {"x": x}, (ALPHA * np.tanh(BETA * wide),), both)
    yield Case("sigmoid_hard", {"x": x}, (np.clip(ALPHA * wide + 0.5, 0, 1),), alpha | {"beta": np.float32(0.5)})
    yield Case("prelu", {"x": x}, (np.where(wide > 0, wide, 0.1 * wide),), {"alpha": channels})
    image = _floats(2, 3, 2, 2)
    slopes = np.array([0.1, 0.5, 2.0], np.float32)
    scaled = slopes[None, :, None, None] * image
    yield Case("prelu", {"x": image}, (np.where(image > 0, image, scaled),), {"alpha": slopes})
    soft = slopes[None, :, None, None] * np.logaddexp(0, scaled)
    yield Case("softplus_parametric", {"x": image}, (soft,), {"alpha": slopes, "beta": slopes})
    yield Case("gelu", {"x": x}, (wide * 0.5 * (1 + special.erf(wide / math.sqrt(2))),))
    tanh = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    yield Case("gelu", {"x": x}, (tanh,), {"mode": "TANH_APPROXIMATION"})
    yield Case("gelu", {"x": x}, (wide * special.expit(1.702 * wide),), {"mode": "SIGMOID_APPROXIMATION"})
    yield Case("softmax", {"x": x}, (special.softmax(wide, -1),))
    yield Case("softmax", {"x": x}, (special.softmax(wide, 1),), {"axis": 1})


def _casts() -> Iterator[Case]:
    x = np.array([-2.7, -0.5, 0.0, 0.5, 2.7], np.float32)
    for dtype, expected in {
        "int32": np.array([-2, 0, 0, 0, 2], np.int32),
        "bool": np.array([True, True, False, True, True]),
        "fp32": x,
        "fp16": x,
    }.items():
        yield Case("cast", {"x": x}, (expected,), {"dtype": dtype}, ct.target.iOS17)
    scale, zero = np.float32(0.5), np.int8(3)
    quantized = np.clip(np.round(x / 0.5) + 3, -128, 127)
    affine = {"scale": scale, "zero_point": zero}
    yield Case("quantize", {"input": x}, (quantized.astype(np.int8),), affine | {"output_dtype": "int8"})
    data = np.array([[-128, 127], [3, 0]], np.int8)
    yield Case("dequantize", {}, (0.5 * (data.astype(np.float32) - 3),), affine | {"input": data})
    scales = np.array([0.5, 2.0], np.float32)
    yield Case("dequantize", {}, (scales * data,), {"input": data, "scale": scales, "axis": 1})
