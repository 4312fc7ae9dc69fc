"""Evaluate single nodes on small arrays: shape arithmetic, masks, position tables."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from onnxprune.graph.view import Node
from onnxprune.types import Array

Shape = tuple[int, ...]
Inputs = list[Array | None]


def shape_value(node: Node, shape: Shape) -> Array:
    """Return what a Shape or Size node gives for an input of this shape."""
    if node.op_type == "Size":
        return np.array(int(np.prod(shape)), dtype=np.int64)
    start, end = node.attribute("start", 0), node.attribute("end", len(shape))
    return np.array(shape[slice(start, end)], dtype=np.int64)


def evaluate(node: Node, inputs: Inputs) -> list[Array]:
    """Compute a node on numpy arrays: common operators directly, all others by the ONNX reference implementation.

    Raises:
        Exception: whatever numpy or the reference implementation raises for inputs that do not fit.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _evaluate(node, inputs)


def _evaluate(node: Node, inputs: Inputs) -> list[Array]:
    direct = _DIRECT.get(node.op_type)
    if direct is not None:
        result = direct(node, inputs)
        if result is not None:
            return [result]
    from onnx.reference import ReferenceEvaluator

    feeds = {n: v for n, v in zip(node.proto.input, inputs, strict=True) if n}
    evaluator: Any = ReferenceEvaluator(node.proto, opsets={"": node.version})
    return [np.asarray(result) for result in evaluator.run(None, feeds)]


def given(inputs: Inputs) -> list[Array]:
    """Return the inputs of an operator that needs them all.

    Raises:
        ValueError: one is missing.
    """
    found = [value for value in inputs if value is not None]
    if len(found) < len(inputs):
        raise ValueError("an input is missing")
    return found


def _list(node: Node, inputs: Inputs, name: str, index: int) -> list[int] | None:
    listed = node.attribute(name)
    if listed is not None:
        return list(listed)
    value = inputs[index] if index < len(inputs) else None
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _gather(node: Node, inputs: Inputs) -> Array | None:
    data, indices = given(inputs)
    return np.asarray(np.take(data, indices, axis=node.attribute("axis", 0)))


def _concat(node: Node, inputs: Inputs) -> Array | None:
    return np.concatenate([a for a in inputs if a is not None], axis=node.attribute("axis", 0))


def _unsqueeze(node: Node, inputs: Inputs) -> Array | None:
    axes = _list(node, inputs, "axes", 1)
    return np.expand_dims(inputs[0], tuple(axes)) if axes is not None and inputs[0] is not None else None


def _squeeze(node: Node, inputs: Inputs) -> Array | None:
    axes = _list(node, inputs, "axes", 1)
    return np.asarray(np.squeeze(given(inputs)[0], tuple(axes) if axes else None))


def _slice(node: Node, inputs: Inputs) -> Array | None:
    data = inputs[0]
    starts, ends = _list(node, inputs, "starts", 1), _list(node, inputs, "ends", 2)
    if data is None or starts is None or ends is None:
        return None
    axes = _list(node, inputs, "axes", 3) or list(range(len(starts)))
    steps = _list(node, inputs, "steps", 4) or [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step) if step > 0 else _backwards(start, end, step, data.shape[axis])
    return data[tuple(index)]


def _backwards(start: int, end: int, step: int, size: int) -> slice:
    """Return numpy's slice for a negative step, whose bounds ONNX cuts at the last position and before the first."""
    start, end = (value + size if value < 0 else value for value in (start, end))
    return slice(min(max(start, 0), size - 1), None if end < 0 else end, step) if size else slice(0)


def _cast(node: Node, inputs: Inputs) -> Array | None:
    (data,) = given(inputs)
    target = onnx.helper.tensor_dtype_to_np_dtype(node.attribute("to"))
    return data.astype(target) if target.kind in "ifb" else None


def _constant_of_shape(node: Node, inputs: Inputs) -> Array | None:
    (shape,) = given(inputs)
    value = node.attribute("value")
    fill = onnx.numpy_helper.to_array(value).reshape(-1)[0] if value is not None else np.float32(0)
    return np.full(tuple(int(v) for v in shape), fill)


def _expand(node: Node, inputs: Inputs) -> Array | None:
    data, shape = given(inputs)
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(int(v) for v in shape))).copy()


def _range(node: Node, inputs: Inputs) -> Array | None:
    start, limit, step = given(inputs)
    return np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _where(node: Node, inputs: Inputs) -> Array | None:
    condition, one, other = given(inputs)
    return np.asarray(np.where(condition, one, other))


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Node, Inputs], Array | None]:
    def apply(node: Node, inputs: Inputs) -> Array | None:
        a, b = given(inputs)
        return np.asarray(function(a, b), dtype=a.dtype)

    return apply


def _compared(function: Callable[[Array, Array], Array]) -> Callable[[Node, Inputs], Array | None]:
    def apply(node: Node, inputs: Inputs) -> Array | None:
        a, b = given(inputs)
        return np.asarray(function(a, b))

    return apply


def _power(node: Node, inputs: Inputs) -> Array | None:
    a, b = given(inputs)
    return np.asarray(np.power(a, b), dtype=a.dtype) if a.dtype.kind == "f" else None


def _reshape(node: Node, inputs: Inputs) -> Array | None:
    if len(inputs) < 2 or node.attribute("allowzero", 0):
        return None
    data, target = given(inputs)
    return data.reshape([data.shape[axis] if size == 0 else size for axis, size in enumerate(target.tolist())])


def _transpose(node: Node, inputs: Inputs) -> Array | None:
    return None if inputs[0] is None else np.transpose(inputs[0], node.attribute("perm"))


def _divide(node: Node, inputs: Inputs) -> Array | None:
    """Integers are cut towards zero, which is rounding down where neither is negative."""
    a, b = given(inputs)
    if a.dtype.kind == "f":
        return np.asarray(a / b, dtype=a.dtype)
    return np.asarray(a // b) if np.all(a >= 0) and np.all(b > 0) else None


def _modulo(node: Node, inputs: Inputs) -> Array | None:
    a, b = given(inputs)
    return np.asarray(a % b) if a.dtype.kind in "iu" and not node.attribute("fmod", 0) and np.all(b != 0) else None


_DIRECT: dict[str, Callable[[Node, Inputs], Array | None]] = {
    "Add": _binary(lambda a, b: a + b),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _compared(lambda a, b: a == b),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _compared(lambda a, b: a > b),
    "GreaterOrEqual": _compared(lambda a, b: a >= b),
    "Identity": lambda node, inputs: inputs[0],
    "Less": _compared(lambda a, b: a < b),
    "LessOrEqual": _compared(lambda a, b: a <= b),
    "Mul": _binary(lambda a, b: a * b),
    "Mod": _modulo,
    "Not": lambda node, inputs: None if inputs[0] is None else np.logical_not(inputs[0]),
    "Pow": _power,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _binary(lambda a, b: a - b),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
