"""Error of each layer of a variant against fp32: what it adds, what has built up by then, how it holds its weights.

A layer is a node that carries a weight. Quantization keeps the names of tensors, so that a layer's output is known by
its name in fp32. Both graphs run as the runtime has them, optimized; then the variant once more, cut at every layer:
what follows a layer is given fp32's output of it, and so each output shows what its layer, and what lies between it
and those before, adds by itself. Outputs of the graph that no layer makes are listed too: behind the last layers
nothing is quantized, and so nothing should be added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from jtts_export.errors import OutsideError
from jtts_export.surgery import release, remove_unused

from .audio import snr_db
from .gates import finite
from .layer_weights import Units, deviation, exact_weights, held, units_of
from .runner import Arrays, Case

if TYPE_CHECKING:
    from jtts_export.exporters.model import Model

ENOUGH = 16  # samples of a channel that say something of it
OUTPUT = "output"  # in the place of a scheme: of what lies behind the last layers


@dataclass(frozen=True)
class LayerError:
    """One layer of a variant, or an output of its graph.

    layer: name of its weight, and of the node where several share one. scheme: how the variant holds it, or OUTPUT.
    isolated_snr_db: of its output, given fp32's; cumulative_snr_db: in the variant's own run, from the taps on that
    parity forces. channel_snr_db: the worst channel's, isolated, where a channel that is weaker than their mean power
    is judged as if it were that strong; of fewer samples than ENOUGH, the layer's. gain_error: how far the layer's
    level is off fp32's, |<measured, exact> / <exact, exact> - 1|, isolated; channel_gain_error: the same of a channel
    that is not weaker than their mean. weight_steps, weight_gain_error: see Deviation.
    """

    graph: str
    layer: str
    scheme: str
    isolated_snr_db: float
    cumulative_snr_db: float
    channel_snr_db: float
    gain_error: float
    channel_gain_error: float
    weight_steps: float
    weight_gain_error: float


@dataclass(frozen=True)
class _Layer:
    """The node of fp32, the tensor that it makes, and that tensor in the variant."""

    name: str
    node: ir.Node
    output: ir.Value
    units: Units | None

    @property
    def tensor(self) -> str:
        return self.output.name or ""


def layer_errors(
    model: Model, fp32: Mapping[str, Path], variant: Mapping[str, Path], case: Case, threads: int
) -> list[LayerError]:
    """Every layer of a model's graphs in the order of the graphs. A "brief" case will do: all outputs of a graph's
    layers are held at once. Raises OutsideError for a variant of other graphs."""
    feeds = model.feeds(fp32, case, threads)
    forced = {tap for stage in model.parity.stages for tap in stage.forced}
    found = []
    for graph in model.graphs:
        found += _graph_errors(graph, fp32[graph], variant[graph], feeds[graph], forced, threads)
    return found


def layer_metrics(errors: Sequence[LayerError]) -> dict[str, float]:
    """The worst layer of each kind, by the names that gates use."""
    behind = [e.isolated_snr_db for e in errors if e.scheme == OUTPUT]
    return {
        **({"layer_outputs_snr_db": min(behind)} if behind else {}),
        "layer_worst_snr_db": min(e.isolated_snr_db for e in errors),
        "layer_channel_snr_db": min(e.channel_snr_db for e in errors),
        "layer_gain_error": max(e.gain_error for e in errors),
        "layer_weight_steps": max(e.weight_steps for e in errors),
        "layer_weight_gain_error": max(e.weight_gain_error for e in errors),
    }


def rows(errors: Sequence[LayerError]) -> list[dict[str, Any]]:
    """For JSON, the layers that add most error first."""
    return [finite(asdict(e)) for e in sorted(errors, key=lambda e: e.isolated_snr_db)]  # type: ignore[misc]


def _graph_errors(
    name: str, exact_path: Path, path: Path, feed: Arrays, taps: Iterable[str], threads: int
) -> list[LayerError]:
    exact_graph, graph = ir.load(exact_path), ir.load(path)
    layers = _layers(exact_graph, graph)
    tensors = [layer.tensor for layer in layers]
    forced = sorted(_made(exact_graph).keys() & _made(graph).keys() & set(taps))
    outputs = _outputs(exact_graph, graph, {*tensors, *forced})
    exact = run_cut(exact_graph, exact_path, [*tensors, *forced, *outputs], {}, feed, threads)
    given = {tap: exact[tap] for tap in forced}
    units = {layer.tensor: layer.units for layer in layers}
    free = run_cut(graph, path, [*tensors, *outputs], given, feed, threads)
    built_up = {name: snr_db(_real(value, units.get(name)), exact[name]) for name, value in free.items()}
    del free
    given |= {layer.tensor: _scaled(exact[layer.tensor], layer.units) for layer in layers}
    alone = run_cut(graph, path, [*tensors, *outputs], given, feed, threads)
    nodes = {layer.tensor: layer.node for layer in layers}
    errors = []
    for layer in layers:
        measured, wanted = _real(alone[layer.tensor], layer.units), exact[layer.tensor]
        holding = held(layer.node, layer.output, nodes)
        off = deviation(layer.node, holding, layer.units)
        errors.append(
            LayerError(
                graph=name,
                layer=layer.name,
                scheme=holding[0].scheme if holding else "unknown",
                isolated_snr_db=snr_db(measured, wanted),
                cumulative_snr_db=built_up[layer.tensor],
                **_channels(_by_channel(measured, layer.node), _by_channel(wanted, layer.node)),
                weight_steps=off.steps,
                weight_gain_error=off.gain_error,
            )
        )
        del holding
        made = layer.output.producer()
        release(layer.node, *([made] if made else []))
    for output in outputs:
        measured, wanted = alone[output], exact[output]
        errors.append(
            LayerError(
                graph=name,
                layer=output,
                scheme=OUTPUT,
                isolated_snr_db=snr_db(measured, wanted),
                cumulative_snr_db=built_up[output],
                **_channels(measured.reshape(1, -1), wanted.reshape(1, -1)),
                weight_steps=0.0,
                weight_gain_error=0.0,
            )
        )
    return errors


def _outputs(exact: ir.Model, variant: ir.Model, others: Set[str]) -> list[str]:
    """Outputs that both graphs have as float32, but for those among `others`."""
    floats = [
        {v.name or "" for v in model.graph.outputs if v.dtype == ir.DataType.FLOAT} for model in (exact, variant)
    ]
    return sorted(floats[0] & floats[1] - others)


def _layers(exact: ir.Model, variant: ir.Model) -> list[_Layer]:
    """In the order of the fp32 graph."""
    made = _made(variant)
    layers = {node.outputs[0].name or "": node for node in exact.graph if exact_weights(node)}
    weights = {tensor: node.inputs[next(iter(exact_weights(node)))].name for tensor, node in layers.items()}  # type: ignore[union-attr]
    uses = Counter(weights.values())
    found = []
    for tensor, node in layers.items():
        if tensor not in made:
            raise OutsideError(f"the variant was not made from this fp32 graph: it has no tensor named {tensor}")
        weight = weights[tensor]
        name = f"{weight}" if uses[weight] == 1 else f"{weight} ({node.name})"
        found.append(_Layer(name, node, made[tensor], units_of(made[tensor], layers)))
    return found


def _made(model: ir.Model) -> dict[str, ir.Value]:
    """What a graph's nodes make, by name."""
    return {value.name: value for node in model.graph for value in node.outputs if value.name}


def run_cut(
    source: ir.Model, path: Path, tensors: Sequence[str], given: Arrays, feed: Arrays, threads: int
) -> dict[str, np.ndarray]:
    """Tensors of the graph in a file, which stays as it is; what follows one of `given` takes the value there."""
    model = source.clone()
    graph = model.graph
    made = _made(model)
    graph.outputs.clear()
    for name, array in given.items():
        value = ir.Value(
            name=f"{name}/exact",
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
        )
        graph.inputs.append(value)
        made[name].replace_all_uses_with(value)
    graph.outputs.extend(made[tensor] for tensor in tensors)
    remove_unused(model)
    session = _session(model, path.parent, threads)
    types = {i.name: i.type for i in session.get_inputs()}
    whole = {**feed, **{f"{name}/exact": array for name, array in given.items()}}
    fed = {name: _typed(array, types[name]) for name, array in whole.items() if name in types}
    return dict(zip(tensors, session.run(list(tensors), fed), strict=True))


def _session(model: ir.Model, folder: Path, threads: int) -> ort.InferenceSession:
    """On a graph in memory whose weights may lie in a file of a folder."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    proto = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def _typed(array: np.ndarray, wanted: str) -> np.ndarray:
    """Keys and values of no positions, of a variant that holds them as int8."""
    return array.astype(np.int8) if wanted == "tensor(int8)" and not array.size else array


def _real(value: np.ndarray, units: Units | None) -> np.ndarray:
    """Values of a variant's tensor in units of fp32's. Such tensors have their channels on axis 1."""
    if units is None:
        return value
    gain, offset = (v.reshape(-1, *[1] * (value.ndim - 2)) for v in (units.gain, units.offset))
    return value * gain + offset


def _scaled(value: np.ndarray, units: Units | None) -> np.ndarray:
    """The reverse."""
    if units is None:
        return value
    gain, offset = (v.reshape(-1, *[1] * (value.ndim - 2)) for v in (units.gain, units.offset))
    return (value - offset) / gain


def _by_channel(value: np.ndarray, node: ir.Node) -> np.ndarray:
    """A layer's output as [channels, samples]."""
    if node.op_type in ("Conv", "ConvTranspose"):
        value = np.moveaxis(value, 1, -1)
    if node.op_type == "LSTM":  # [sequence, directions, batch, hidden]
        value = value.swapaxes(1, 2).reshape(-1, value.shape[1] * value.shape[3])
    return value.reshape(-1, value.shape[-1]).T


def _channels(measured: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """channel_snr_db, gain_error and channel_gain_error of outputs [channels, samples]."""
    if measured.shape != exact.shape or not np.isfinite(measured).all():
        return {
            "channel_snr_db": float("-inf"),
            "gain_error": float("inf"),
            "channel_gain_error": float("inf"),
        }
    exact = exact.astype(np.float64)
    error = measured - exact
    power, noise, along = (np.einsum("ct,ct->c", a, b) for a, b in ((exact, exact), (error, error), (error, exact)))
    gain = abs(along.sum() / power.sum()) if power.any() else 0.0
    if exact.shape[1] < ENOUGH:
        power, noise, along = (v.mean(keepdims=True) for v in (power, noise, along))
    mean = power.mean()
    loud = power >= mean
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(noise / np.maximum(power, mean)).max()
        snr = -10 * float(np.log10(ratio)) if ratio > 0 else float("inf")
        gains = np.nan_to_num(np.abs(along[loud] / power[loud]))
    return {"channel_snr_db": snr, "gain_error": float(gain), "channel_gain_error": float(gains.max())}
