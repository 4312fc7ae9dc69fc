"""Fused layers written as what they are made of, for the form that is looked at and fitted: never in what is written.

Every part that reads stored tensors says which inputs of the fused node its own are, so that new values find back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from onnxprune.operators.operator import MICROSOFT, Dims, Part, Unfused, operator_of

ACTIVATIONS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
"""Activation -> its parameters, in the order in which a fused node lists them."""
SPLIT_BY_INPUT = 13
"""From this opset on a Split takes its sizes as an input."""


def unfused(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """Return a fused node as its parts; None where it is none that is known, or reads no stored matrix."""
    operator = operator_of(node)
    return operator.parts(node, dims, opset) if operator is not None and operator.parts is not None and opset else None


def is_fused(node: NodeProto) -> bool:
    """Tell whether an operator may be written out."""
    operator = operator_of(node)
    return operator is not None and operator.parts is not None


def _values(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _activated(node: NodeProto, op_type: str, parameters: Sequence[float]) -> Unfused:
    """y = activation(layer(x) + z)"""
    values, output = _values(node), node.output[0]
    kind = values.get("activation", b"").decode()
    plain = {name: value for name, value in values.items() if not name.startswith("activation")}
    inner = f"{output}/linear"
    parts = [Part(helper.make_node(op_type, list(node.input[:3]), [inner], node.name, **plain), (0, 1, 2))]
    twins: dict[str, tuple[str, int | None]] = {inner: (output, None)}
    if len(node.input) > 3 and node.input[3]:
        total = f"{output}/total"
        parts.append(Part(helper.make_node("Add", [inner, node.input[3]], [total]), (-1, 3)))
        twins[total], inner = (output, None), total
    if kind == "Clip":
        bounds = [f"{output}/low", f"{output}/high"]
        for name, value in zip(bounds, parameters, strict=False):
            tensor = numpy_helper.from_array(np.array(value, np.float32))
            parts.append(Part(helper.make_node("Constant", [], [name], value=tensor)))
        parts.append(Part(helper.make_node("Clip", [inner, *bounds], [output])))
        return Unfused(tuple(parts), twins)
    given: dict[str, Any] = dict(zip(ACTIVATIONS.get(kind, ()), parameters, strict=False))
    parts.append(Part(helper.make_node(kind or "Identity", [inner], [output], **given)))
    return Unfused(tuple(parts), twins)


def conv_parts(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """y = activation(conv(x, w) + b + z)"""
    kind = _values(node).get("activation", b"").decode()
    parameters = list(_values(node).get("activation_params", ()))
    if (kind and kind not in (*ACTIVATIONS, "Clip")) or dims(node.input[1]) is None:
        return None
    return None if kind == "Clip" and len(parameters) < 2 else _activated(node, "Conv", parameters)


def gemm_parts(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """y = activation(gemm(x, w, b))"""
    values = _values(node)
    kind = values.get("activation", b"").decode()
    if (kind and kind not in ACTIVATIONS) or dims(node.input[1]) is None:
        return None
    parameters = [values[f"activation_{name}"] for name in ACTIVATIONS.get(kind, ()) if f"activation_{name}" in values]
    return _activated(node, "Gemm", parameters)


def _product(node: NodeProto, names: tuple[str, str], turned: bool, factor: float = 1.0, place: int = 1) -> list[Part]:
    """y = factor * x W, W stored as it is or turned."""
    output, (x, weight) = node.output[0], names
    parts: list[Part] = []
    wires = (1 - place, place)
    if turned:
        straight = f"{output}/turned"
        parts.append(Part(helper.make_node("Transpose", [weight], [straight], perm=[1, 0])))
        weight = straight
    made = output if factor == 1.0 else f"{output}/linear"
    parts.append(Part(helper.make_node("MatMul", [x, weight], [made], node.name), wires))
    if factor != 1.0:
        tensor = numpy_helper.from_array(np.array(factor, np.float32))
        parts.append(Part(helper.make_node("Constant", [], [f"{output}/factor"], value=tensor)))
        parts.append(Part(helper.make_node("Mul", [made, f"{output}/factor"], [output])))
    return parts


def matmul_parts(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """y = alpha * op(a) op(b)"""
    values, shape = _values(node), dims(node.input[1])
    if shape is None or len(shape) != 2 or any(values.get(n) for n in ("transA", "transBatchA", "transBatchB")):
        return None
    factor = float(values.get("alpha", 1.0))
    parts = _product(node, (node.input[0], node.input[1]), bool(values.get("transB")), factor)
    return Unfused(tuple(parts), {f"{node.output[0]}/linear": (node.output[0], None)})


def einsum_parts(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """y[.., o] = sum over c of x[.., c] * w[c, o], the last axis of x contracted with either axis of w."""
    equation = _values(node).get("equation", b"").decode().replace(" ", "")
    terms, arrow, result = equation.partition("->")
    names = terms.split(",")
    if not arrow or len(names) != 2 or len(node.input) != 2:
        return None
    for place in (1, 0):
        x, weight, shape = names[1 - place], names[place], dims(node.input[place])
        if shape is None or len(shape) != 2 or len(weight) != 2 or not x or len(set(weight)) != 2:
            continue
        turned = weight[1] == x[-1]
        if weight[1 if turned else 0] != x[-1]:
            continue
        out = weight[0] if turned else weight[1]
        if result == x[:-1] + out and out not in x and (len(set(x)) == len(x) or "..." in x):
            pair = node.input[1 - place], node.input[place]
            return Unfused(tuple(_product(node, pair, turned, place=place)))
    return None


def attention_parts(node: NodeProto, dims: Dims, opset: int) -> Unfused | None:
    """q, k, v = parts of x W + b; y = attention of q, k, v"""
    values, names = _values(node), [*node.input, *[""] * 7][:7]
    shape = dims(names[1])
    lone = len(node.output) == 1 and not names[4] and not names[6] and not values.get("do_rotary")
    if shape is None or len(shape) != 2 or not names[2] or not lone:
        return None
    output, total = node.output[0], shape[1]
    sizes = list(values.get("qkv_hidden_sizes") or [total // 3] * 3)
    packed, biased, three = f"{output}/packed", f"{output}/biased", [f"{output}/{n}" for n in "qkv"]
    parts = [
        Part(helper.make_node("MatMul", names[:2], [packed], node.name), (0, 1)),
        Part(helper.make_node("Add", [packed, names[2]], [biased]), (-1, 2)),
    ]
    if opset >= SPLIT_BY_INPUT:
        tensor = numpy_helper.from_array(np.array(sizes, np.int64))
        parts.append(Part(helper.make_node("Constant", [], [f"{output}/sizes"], value=tensor)))
        parts.append(Part(helper.make_node("Split", [biased, f"{output}/sizes"], three, axis=-1)))
    else:
        parts.append(Part(helper.make_node("Split", [biased], three, axis=-1, split=sizes)))
    kept = {n: v for n, v in values.items() if n in ("num_heads", "unidirectional", "scale", "mask_filter_value")}
    inputs = [*three, "", names[3], names[5]]
    while not inputs[-1]:
        inputs.pop()
    parts.append(Part(helper.make_node("MultiHeadAttention", inputs, [output], domain=MICROSOFT, **kept)))
    return Unfused(tuple(parts), {packed: (names[1], 1), biased: (names[1], 1)})


def default_opset(proto: onnx.ModelProto) -> int:
    """Return the version of the default domain, 0 where it is not imported."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
