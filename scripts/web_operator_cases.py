"""Graphs of one node each, with inputs and what should come out: those of onnx's tests, and some of com.microsoft."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
OPSET, IR_VERSION = 17, 8  # the oldest that graphs are exported with
RNG_SEED = 0

KINDS = {"float32", "float64", "float16", "bool", *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64))}

# Operators that a runtime may have in some forms only: the attributes that tell them apart, and their defaults.
FORMS: dict[str, dict[str, Any]] = {
    "MatMulNBits": {"bits": 4, "block_size": None, "accuracy_level": 0},
    "GroupQueryAttention": {
        **{"do_rotary": 0, "qk_output": 0},
        **{"k_quant_type": "NONE", "v_quant_type": "NONE", "kv_cache_bit_width": 0},
    },
}


@dataclass(frozen=True)
class Case:
    """A model of one node, its inputs, and the outputs expected."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]

    @property
    def form(self) -> list[Any]:
        """Values of the attributes in FORMS."""
        held = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        values = [held.get(name, default) for name, default in FORMS.get(self.node.op_type, {}).items()]
        return [value.decode() if isinstance(value, bytes) else value for value in values]

    def stamped(self, opset: int) -> Case:
        """The same graph in another opset of onnx."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.ir_version = min(IR_VERSION + 2, max(IR_VERSION, model.ir_version))
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)])
        return Case(model, self.inputs, self.outputs)


def standard() -> list[Case]:
    """onnx's own cases of one node, of the types that JavaScript has: float32 first."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [case for case in map(_of_onnx, collect_testcases(None)) if case]
    found += [_older(case) for case in found if case.node.op_type.startswith("Reduce") and "axes" in case.inputs]
    return sorted(found, key=lambda case: any(a.dtype != np.float32 for a in case.inputs.values()))


def _of_onnx(case: Any) -> Case | None:
    model = case.model
    if len(model.graph.node) != 1 or model.graph.node[0].domain or not case.data_sets:
        return None
    given, wanted = (_arrays(values) for values in case.data_sets[0])
    if given is None or not wanted:
        return None
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    return Case(model, dict(zip(names[0], given, strict=False)), dict(zip(names[1], wanted, strict=True)))


def _older(case: Case) -> Case:
    """The form that reductions had before opset 18: axes as an attribute."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    node = model.graph.node[0]
    del node.input[1:]
    if case.inputs["axes"].size:
        node.attribute.append(helper.make_attribute("axes", case.inputs["axes"].tolist()))
    kept = [value for value in model.graph.input if value.name != "axes"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return Case(model, {k: v for k, v in case.inputs.items() if k != "axes"}, case.outputs)


def _arrays(values: Sequence[Any]) -> list[np.ndarray] | None:
    """As arrays of types that JavaScript has; None where it has not all."""
    plain = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]
    if all(isinstance(v, np.ndarray | np.generic) and v.dtype.name in KINDS for v in plain):
        return [np.asarray(v) for v in plain]
    return None


def microsoft() -> Iterator[Case]:
    """The operators of onnxruntime's own that graphs hold, in the forms that they hold them; expected is what
    onnxruntime makes of them here."""
    rng = np.random.default_rng(RNG_SEED)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    rows, gain, bias = normal(2, 3, 64), normal(64), normal(64)
    yield _case("BiasGelu", [rows, bias])
    yield _case("FastGelu", [rows, bias])
    yield _case("QuickGelu", [rows], alpha=1.0)
    yield _case("Gelu", [rows])
    yield _case("FusedMatMul", [rows[0], normal(64, 5)], alpha=0.5)
    yield _case("SkipLayerNormalization", [rows, normal(2, 3, 64), gain, bias, bias], epsilon=1e-5)
    yield _case("SkipSimplifiedLayerNormalization", [rows, normal(2, 3, 64), gain], epsilon=1e-5, outputs=(0, 3))
    integers = rng.integers(-127, 128, (64, 32)).astype(np.int8)
    weights = [integers, np.abs(normal(32)) / 127, np.zeros(32, np.int8)]
    yield _case("DynamicQuantizeMatMul", [rows, *weights], constants=(1, 2, 3))
    yield _case("MatMulIntegerToFloat", [integers[:4].astype(np.uint8), integers[:32], *_scales(1, 1)])
    for bits, block, accuracy in itertools.product((2, 4, 8), (16, 32, 64, 128, 256), (0, 4)):
        yield _blocked(rng, bits, block, accuracy)
    yield _case("MultiHeadAttention", [normal(2, 3, 64), normal(2, 5, 64), normal(2, 5, 64)], num_heads=4)
    for rotary, qk, kind in itertools.product((0, 1), (0, 1, 2), ("NONE", "PER_TENSOR", "PER_CHANNEL")):
        yield _grouped(rng, rotary, qk, kind)


def _scales(*sizes: int) -> list[np.ndarray]:
    return [np.full(size, 0.01, np.float32) for size in sizes]


def _blocked(rng: np.random.Generator, bits: int, block: int, accuracy: int) -> Case:
    size, wide = 512, 24
    integers = rng.integers(0, 256, (wide, size // block, block * bits // 8)).astype(np.uint8)
    scale = rng.uniform(0.01, 0.02, (wide, size // block)).astype(np.float32)
    rows = rng.standard_normal((2, 3, size), dtype=np.float32)
    form = {"bits": bits, "block_size": block, "accuracy_level": accuracy}
    return _case("MatMulNBits", [rows, integers, scale], constants=(1, 2), K=size, N=wide, **form)


def _grouped(rng: np.random.Generator, rotary: int, qk: int, kind: str) -> Case:
    """A step of one position behind a past of three, in two rows: queries, keys and values in one."""
    heads, size, past = 2, 16, 3

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    cache = [normal(2, heads, past, size) for _ in "kv"]
    scales: list[np.ndarray | None] = [None, None]
    form: dict[str, Any] = {"do_rotary": rotary, "qk_output": qk}
    if kind != "NONE":
        cache = [np.clip(np.rint(part * 30), -127, 127).astype(np.int8) for part in cache]
        scales = [np.full(heads * size if kind == "PER_CHANNEL" else 1, 1 / 30, np.float32) for _ in "kv"]
        form |= {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8}
    if not qk:
        form.pop("qk_output")  # an older runtime does not know it
    lengths = [np.full(2, past, np.int32), np.array(past + 1, np.int32)]
    angle = normal(16, size // 2)
    tables = [np.cos(angle), np.sin(angle)] if rotary else [None, None]
    inputs = [normal(2, 1, 3 * heads * size), None, None, *cache, *lengths, *tables, None, None, None, *scales]
    while inputs[-1] is None:
        inputs.pop()
    outputs = (0, 1, 2, 3) if qk else (0, 1, 2)
    return _case("GroupQueryAttention", inputs, outputs=outputs, num_heads=heads, kv_num_heads=heads,
                 scale=0.25, **form)  # fmt: skip


def _case(
    op: str,
    inputs: Sequence[np.ndarray | None],
    constants: Sequence[int] = (),
    outputs: Sequence[int] = (0,),
    **attributes: Any,
) -> Case:
    """Expected is what onnxruntime makes of it. constants: inputs that are initializers; outputs: their places."""
    names = [f"in{i}" if a is not None else "" for i, a in enumerate(inputs)]
    made = [f"out{i}" if i in outputs else "" for i in range(max(outputs) + 1)]
    arrays = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    fixed = {names[i] for i in constants}
    given = {n: a for n, a in arrays.items() if n not in fixed}
    graph = helper.make_graph(
        [helper.make_node(op, names, made, name=op, domain=MICROSOFT, **attributes)],
        op,
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given.items()
        ],
        [onnx.ValueInfoProto(name=n) for n in made if n],
        [numpy_helper.from_array(arrays[n], n) for n in fixed],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        wanted = dict(zip((n for n in made if n), session.run(None, given), strict=True))
    except Exception as error:
        warnings.warn(f"{op} {attributes}: not even onnxruntime {ort.__version__} has it: {error}", stacklevel=2)
        wanted = {}
    return Case(model, given, wanted)
