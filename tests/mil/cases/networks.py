"""Cases of layers: products, convolutions, pools, normalizations, recurrent layers, attention, resizing."""

import itertools
import math
from collections.abc import Iterator

import coremltools as ct
import numpy as np
import torch
import torch.nn.functional as F
from mil.programs import Array, Case

RNG = np.random.default_rng(1)
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def _torch(*arrays: Array) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in arrays)


def cases() -> Iterator[Case]:
    """All cases of layers."""
    yield from _products()
    yield from _convolutions()
    yield from _transposed()
    yield from _pools()
    yield from _normalizations()
    yield from _lstms()
    yield from _other_recurrent()
    yield from _attention()
    yield from _resizing()


def _products() -> Iterator[Case]:
    x, weight, bias = _floats(2, 3, 4), _floats(5, 4), _floats(5)
    yield Case("linear", {"x": x}, (x @ weight.T + bias,), {"weight": weight, "bias": bias})
    yield Case("linear", {"x": x}, (x @ weight.T,), {"weight": weight})
    left, right = _floats(2, 1, 3, 4), _floats(5, 4, 3)
    for transpose_x, transpose_y in itertools.product((False, True), repeat=2):
        x = left.swapaxes(-1, -2).copy() if transpose_x else left
        y = right.swapaxes(-1, -2).copy() if transpose_y else right
        params = {"transpose_x": transpose_x, "transpose_y": transpose_y}
        yield Case("matmul", {"x": x, "y": y}, (np.matmul(left, right),), params)
    vector, matrix = _floats(4), _floats(4, 3)
    yield Case("matmul", {"x": vector, "y": matrix}, (np.matmul(vector, matrix),))
    for equation, a, b in (
        ("nchw,nwhu->nchu", _floats(2, 3, 4, 5), _floats(2, 5, 4, 6)),
        ("chw,whr->chr", _floats(3, 4, 5), _floats(5, 4, 2)),
    ):
        yield Case("einsum", {"values": (a, b)}, (np.einsum(equation, a, b),), {"equation": equation})


def _padded(sizes: tuple[int, ...], kernels: list[int], strides: list[int], lower: bool) -> list[tuple[int, int]]:
    amounts = []
    for size, kernel, stride in zip(sizes, kernels, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
        amounts.append((total - total // 2, total // 2) if lower else (total // 2, total - total // 2))
    return amounts


def _flat(amounts: list[tuple[int, int]]) -> list[int]:
    return [number for pair in reversed(amounts) for number in pair]


def _convolutions() -> Iterator[Case]:
    for rank, groups, pad_type in itertools.product((1, 2, 3), (1, 2), ("valid", "custom", "same", "same_lower")):
        strides = [int(number) for number in RNG.integers(1, 3, rank)]
        dilations = [int(number) for number in RNG.integers(1, 3, rank)]
        kernel = [int(number) for number in RNG.integers(1, 4, rank)]
        x, weight, bias = _floats(2, 4, *[7, 6, 5][:rank]), _floats(6, 4 // groups, *kernel), _floats(6)
        wide = [(size - 1) * spread + 1 for size, spread in zip(kernel, dilations, strict=True)]
        amounts = [(0, 0)] * rank
        if pad_type == "custom":
            amounts = [(1, 2), (0, 1), (2, 0)][:rank]
        elif pad_type != "valid":
            amounts = _padded(x.shape[2:], wide, strides, pad_type == "same_lower")
        padded = F.pad(torch.from_numpy(x), _flat(amounts))
        expected = _CONV[rank](padded, *_torch(weight, bias), strides, 0, dilations, groups)
        params = {
            "weight": weight,
            "bias": bias,
            "strides": strides,
            "dilations": dilations,
            "groups": groups,
            "pad_type": pad_type,
        }
        if pad_type == "custom":
            params["pad"] = [number for pair in amounts for number in pair]
        yield Case("conv", {"x": x}, (expected.numpy(),), params)
    x, weight = _floats(1, 2, 9), _floats(3, 2, 3)
    expected = F.conv1d(*_torch(x, weight), padding=1)
    yield Case("conv", {"x": x}, (expected.numpy(),), {"weight": weight, "pad": [1, 1], "pad_type": "custom"})
    yield Case("conv", {"x": x, "weight": weight}, (F.conv1d(*_torch(x, weight)).numpy(),))


def _transposed() -> Iterator[Case]:
    for rank, groups, dilation in itertools.product((1, 2, 3), (1, 2), (1, 2)):
        x, weight, bias = _floats(1, 4, *[5, 4, 3][:rank]), _floats(4, 3, *[4, 3, 2][:rank]), _floats(3 * groups)
        strides = [3, 2, 1][:rank]
        full = _TRANSPOSE[rank](*_torch(x, weight, bias), strides, 0, 0, groups, dilation)
        common = {
            "weight": weight,
            "bias": bias,
            "strides": strides,
            "groups": groups,
            "dilations": [dilation] * rank,
        }
        yield Case("conv_transpose", {"x": x}, (full.numpy(),), common)
        pads = [(1, 0), (0, 1), (1, 1)][:rank]
        cut = F.pad(full, [-number for number in _flat(pads)])
        flat = [number for pair in pads for number in pair]
        yield Case("conv_transpose", {"x": x}, (cut.numpy(),), common | {"pad_type": "custom", "pad": flat})
        target = [5 * 3, 4 * 2, 3][:rank]
        # TensorFlow's transposed "same": the cut is split with the odd element after.
        totals = [have - want for have, want in zip(full.shape[2:], target, strict=True)]
        if min(totals) >= 0:
            cut = F.pad(full, _flat([(-(total // 2), total // 2 - total) for total in totals]))
            yield Case("conv_transpose", {"x": x}, (cut.numpy(),), common | {"pad_type": "same"})
    x, weight, bias = _floats(1, 2, 5), _floats(2, 3, 4), _floats(3)
    padded = F.conv_transpose1d(*_torch(x, weight, bias), 3, 1, 2)
    params = {
        "weight": weight,
        "bias": bias,
        "strides": [3],
        "pad": [1, 1],
        "pad_type": "custom",
        "output_shape": padded.shape,
    }
    yield Case("conv_transpose", {"x": x}, (padded.numpy(),), params)


def _pools() -> Iterator[Case]:
    x = _floats(2, 3, 7, 6)
    image = torch.from_numpy(x)
    sizes = {"kernel_sizes": [3, 2], "strides": [2, 2]}
    for exclude in (False, True):
        padded = F.avg_pool2d(image, [3, 2], 2, [1, 1], count_include_pad=not exclude)
        params = sizes | {"pad_type": "custom", "pad": [1, 1, 1, 1], "exclude_padding_from_average": exclude}
        yield Case("avg_pool", {"x": x}, (padded.numpy(),), params)
    same = F.avg_pool2d(F.pad(image, _flat(_padded((7, 6), [3, 2], [2, 2], False))), [3, 2], 2)
    yield Case("avg_pool", {"x": x}, (same.numpy(),), sizes | {"pad_type": "same"})
    ceil = {"ceil_mode": True, "pad_type": "custom", "pad": [1, 1, 1, 1]}
    yield Case("avg_pool", {"x": x}, (F.avg_pool2d(image, [3, 2], 2, 1, True).numpy(),), sizes | ceil)
    yield Case("max_pool", {"x": x}, (F.max_pool2d(image, [3, 2], 2, 1, ceil_mode=True).numpy(),), sizes | ceil)
    lower = F.pad(image, _flat(_padded((7, 6), [3, 2], [2, 2], True)), value=-math.inf)
    yield Case("max_pool", {"x": x}, (F.max_pool2d(lower, [3, 2], 2).numpy(),), sizes | {"pad_type": "same_lower"})
    line = _floats(1, 2, 9)
    valid = {"kernel_sizes": [3], "pad_type": "valid"}
    yield Case("max_pool", {"x": line}, (F.max_pool1d(torch.from_numpy(line), 3, 1).numpy(),), valid)
    yield Case("avg_pool", {"x": line}, (F.avg_pool1d(torch.from_numpy(line), 3, 1).numpy(),), valid)
    cube = _floats(1, 2, 4, 5, 6)
    params = {"kernel_sizes": [2, 2, 3], "strides": [2, 1, 3], "pad_type": "valid"}
    yield Case("avg_pool", {"x": cube}, (F.avg_pool3d(torch.from_numpy(cube), [2, 2, 3], [2, 1, 3]).numpy(),), params)


def _normalizations() -> Iterator[Case]:
    x, gamma, beta, mean = _floats(2, 3, 4, 5), _floats(3), _floats(3), _floats(3)
    variance = np.abs(_floats(3)) + np.float32(0.1)
    image, eps = torch.from_numpy(x), np.float32(1e-3)
    affine = {"gamma": gamma, "beta": beta, "epsilon": eps}
    expected = F.batch_norm(image, *_torch(mean, variance, gamma, beta), eps=1e-3)
    yield Case("batch_norm", {"x": x}, (expected.numpy(),), affine | {"mean": mean, "variance": variance})
    plain = F.batch_norm(image, *_torch(mean, variance))
    yield Case("batch_norm", {"x": x}, (plain.numpy(),), {"mean": mean, "variance": variance})
    expected = F.instance_norm(image, weight=torch.from_numpy(gamma), bias=torch.from_numpy(beta), eps=1e-3)
    yield Case("instance_norm", {"x": x}, (expected.numpy(),), affine)
    yield Case("instance_norm", {"x": x}, (F.instance_norm(image).numpy(),))
    weight, shift = _floats(4, 5), _floats(4, 5)
    expected = F.layer_norm(image, (4, 5), *_torch(weight, shift), eps=1e-3)
    params = {"axes": [-2, -1], "gamma": weight, "beta": shift, "epsilon": eps}
    yield Case("layer_norm", {"x": x}, (expected.numpy(),), params)
    yield Case("layer_norm", {"x": x}, (F.layer_norm(image, (2, 3, 4, 5)).numpy(),), {"axes": [0, 1, 2, 3]})
    inner = F.layer_norm(image.transpose(1, -1), (3,), *_torch(gamma, beta)).transpose(1, -1)
    yield Case("layer_norm", {"x": x}, (inner.numpy(),), {"axes": [1], "gamma": gamma, "beta": beta})
    norm = np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True) + 1e-6)
    yield Case("l2_norm", {"x": x}, (x / norm,))
    wide = _floats(2, 6, 4)
    expected = F.local_response_norm(torch.from_numpy(wide), 3, 0.1, 0.5, 2.0)
    params = {"size": 3, "alpha": np.float32(0.1), "beta": np.float32(0.5), "k": np.float32(2)}
    yield Case("local_response_norm", {"x": wide}, (expected.numpy(),), params)


def _mil_gates(weights: torch.Tensor) -> Array:
    """Torch's gates i, f, z, o in MIL's order i, f, o, z."""
    i, f, z, o = weights.detach().chunk(4)
    return torch.cat((i, f, o, z)).numpy()


def _lstms() -> Iterator[Case]:
    steps, batch, features, hidden = 5, 2, 3, 4
    for direction, whole in itertools.product(("forward", "reverse", "bidirectional"), (False, True)):
        both = direction == "bidirectional"
        torch.manual_seed(len(direction))
        layer = torch.nn.LSTM(features, hidden, bidirectional=both)
        x = _floats(steps, batch, features)
        h, c = _floats(1 + both, batch, hidden), _floats(1 + both, batch, hidden)
        read = x[::-1].copy() if direction == "reverse" else x
        with torch.no_grad():
            sequence, (last_h, last_c) = layer(torch.from_numpy(read), _torch(h, c))
        flat_h, flat_c = (state.transpose(0, 1).reshape(batch, -1).numpy() for state in (last_h, last_c))
        params = {"direction": direction, "output_sequence": whole}
        for suffix, name in (("", ""), ("_back", "_reverse"))[: 1 + both]:
            params[f"weight_ih{suffix}"] = _mil_gates(getattr(layer, f"weight_ih_l0{name}"))
            params[f"weight_hh{suffix}"] = _mil_gates(getattr(layer, f"weight_hh_l0{name}"))
            bias = getattr(layer, f"bias_ih_l0{name}") + getattr(layer, f"bias_hh_l0{name}")
            params[f"bias{suffix}"] = _mil_gates(bias)
        inputs = {
            "x": x,
            "initial_h": h.transpose(1, 0, 2).reshape(batch, -1),
            "initial_c": c.transpose(1, 0, 2).reshape(batch, -1),
        }
        yield Case("lstm", inputs, (sequence.numpy() if whole else flat_h[None], flat_h, flat_c), params)
    yield _strange_lstm()


def _strange_lstm() -> Case:
    """Other activations and a clipped cell gate, against the formulas of MIL's documentation."""
    x, h, c = _floats(3, 2, 3), _floats(2, 4), _floats(2, 4)
    weight_ih, weight_hh = _floats(16, 3), _floats(16, 4)
    params = {
        "weight_ih": weight_ih,
        "weight_hh": weight_hh,
        "recurrent_activation": "relu",
        "cell_activation": "linear",
        "activation": "sigmoid",
        "clip": np.float32(0.4),
    }
    hidden, cell = h, c
    for step in x:
        i, f, o, z = np.split(step @ weight_ih.T + hidden @ weight_hh.T, 4, axis=1)
        cell = np.maximum(f, 0) * cell + np.maximum(i, 0) * np.clip(z, -0.4, 0.4)
        hidden = np.maximum(o, 0) / (1 + np.exp(-cell))
    expected = (hidden[None], hidden, cell)
    return Case("lstm", {"x": x, "initial_h": h, "initial_c": c}, expected, params, tolerance=1e-4)


def _other_recurrent() -> Iterator[Case]:
    for direction, whole in itertools.product(("forward", "reverse"), (False, True)):
        x, h, bias = _floats(4, 2, 3), _floats(2, 5), _floats(15)
        weight_ih, weight_hh = _floats(15, 3), _floats(15, 5)
        ordered = x[::-1] if direction == "reverse" else x
        common = {"direction": direction, "output_sequence": whole}
        hidden, made = h, []
        for step in ordered:
            r, o, z = np.split(step @ weight_ih.T + bias, 3, axis=1)
            w_r, w_o, w_z = np.split(weight_hh, 3)
            reset = 1 / (1 + np.exp(-(r + hidden @ w_r.T)))
            update = 1 / (1 + np.exp(-(z + hidden @ w_z.T)))
            hidden = (1 - update) * np.tanh(o + (reset * hidden) @ w_o.T) + update * hidden
            made.append(hidden)
        params = common | {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
        expected = (np.stack(made) if whole else hidden[None], hidden)
        yield Case("gru", {"x": x, "initial_h": h}, expected, params)
        hidden, made = h, []
        for step in ordered:
            hidden = np.maximum(step @ weight_ih[:5].T + bias[:5] + hidden @ weight_hh[:5].T, 0)
            made.append(hidden)
        params = common | {
            "weight_ih": weight_ih[:5],
            "weight_hh": weight_hh[:5],
            "bias": bias[:5],
            "activation": "relu",
        }
        expected = (np.stack(made) if whole else hidden[None], hidden)
        yield Case("rnn", {"x": x, "initial_h": h}, expected, params, tolerance=1e-4)


def _attention() -> Iterator[Case]:
    query, key, value = _floats(1, 2, 3, 4), _floats(1, 2, 5, 4), _floats(1, 2, 5, 6)
    inputs = {"query": query, "key": key, "value": value}
    plain = F.scaled_dot_product_attention(*_torch(query, key, value)).numpy()
    op, target = "scaled_dot_product_attention", ct.target.iOS18
    yield Case(op, inputs, (plain,), target=target)
    added = _floats(1, 1, 3, 5)
    expected = F.scaled_dot_product_attention(*_torch(query, key, value, added)).numpy()
    yield Case(op, inputs | {"attn_mask": added}, (expected,), target=target)
    allowed = np.tril(np.ones((1, 1, 3, 5), bool))
    expected = F.scaled_dot_product_attention(*_torch(query, key, value, allowed)).numpy()
    yield Case(op, inputs | {"attn_mask": allowed}, (expected,), target=target)


def _interpolated(x: Array, height: list[float], width: list[float]) -> Array:
    """x `[..., h, w]` at the given points, by numpy's own interpolation."""
    rows = np.apply_along_axis(lambda line: np.interp(height, np.arange(x.shape[-2]), line), -2, x)
    return np.apply_along_axis(lambda line: np.interp(width, np.arange(x.shape[-1]), line), -1, rows)


def _resizing() -> Iterator[Case]:
    x = _floats(1, 2, 3, 4)
    image = torch.from_numpy(x)
    yield Case("resize_nearest_neighbor", {"x": x}, (x.repeat(2, -2).repeat(3, -1),), {
        "target_size_height": 6, "target_size_width": 12,
    })  # fmt: skip
    for scales in ((1, 3), (np.float32(2.0), np.float32(1.0))):
        expected = x.repeat(int(scales[0]), -2).repeat(int(scales[1]), -1)
        params = {"scale_factor_height": scales[0], "scale_factor_width": scales[1]}
        yield Case("upsample_nearest_neighbor", {"x": x}, (expected,), params)
    for aligned in (False, True):
        expected = F.interpolate(image, scale_factor=(2, 3), mode="bilinear", align_corners=aligned)
        params = {"scale_factor_height": 2, "scale_factor_width": 3, "align_corners": aligned}
        yield Case("upsample_bilinear", {"x": x}, (expected.numpy(),), params)
    points = [index / 2 for index in range(6)], [index / 2 for index in range(8)]
    params = {"scale_factor_height": 2, "scale_factor_width": 2, "align_corners": False, "half_pixel_centers": False}
    yield Case("upsample_bilinear", {"x": x}, (_interpolated(x, *points),), params)
    # The grid points that MIL's documentation lists for two elements made five.
    documented = {
        "UNALIGN_CORNERS": [0.0, 0.1, 0.5, 0.9, 1.0],
        "STRICT_ALIGN_CORNERS": [0.0, 0.25, 0.5, 0.75, 1.0],
        "ALIGN_CORNERS": [0.0, 0.25, 0.5, 0.75, 1.0],
        "DEFAULT": [0.0, 0.4, 0.8, 1.0, 1.0],
        "OFFSET_CORNERS": [0.1, 0.3, 0.5, 0.7, 0.9],
    }
    square = _floats(1, 2, 2, 2)
    for mode, points in documented.items():
        expected = _interpolated(square, points, points)
        params = {"target_size_height": 5, "target_size_width": 5, "sampling_mode": mode}
        yield Case("resize_bilinear", {"x": square}, (expected,), params)
        params = {
            "shape": np.array([1, 0, 5], np.int32),
            "resized_dims": np.uint32(2),
            "interpolation_mode": "LINEAR",
            "sampling_mode": mode,
        }
        # A kept size is sampled by the mode's formula too, which moves the points of OFFSET_CORNERS.
        kept = [0.25, 0.75] if mode == "OFFSET_CORNERS" else [0.0, 1.0]
        yield Case("resize", {"x": square}, (_interpolated(square, kept, points),), params)
    params = {"target_size_height": 1, "target_size_width": 1, "sampling_mode": "ALIGN_CORNERS"}
    yield Case("resize_bilinear", {"x": square}, (square.mean((2, 3), keepdims=True),), params)
    params = {
        "shape": np.array([4, 2], np.int32),
        "resized_dims": np.uint32(2),
        "interpolation_mode": "NEAREST_NEIGHBOR",
        "sampling_mode": "DEFAULT",
    }
    yield Case("resize", {"x": square}, (square.repeat(2, -2),), params)
