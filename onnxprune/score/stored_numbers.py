"""Weights as numbers: stored floats as they are, stored integers multiplied out with their scale and zero point."""

from __future__ import annotations

import numpy as np

from onnxprune.graph.view import Node, View
from onnxprune.operators.operator import Packed, operator_of
from onnxprune.types import Array

DEQUANTIZED = Packed(0, 1, 2, None)


def read_weight(view: View, key: str) -> Array:
    """Return a parameter as numbers; an integer weight as (q - zero point) * scale where its reader says how.

    Args:
        view: the model.
        key: a key of `view.parameters`.
    """
    array = view.content(key)
    if array.dtype.kind == "f" or array.size <= 1:
        return array
    for node, index in view.readers.get(key, []):
        packed = _packed(node, index)
        if packed is not None:
            axis = node.attribute("axis", 1) if packed.axis is None else packed.axis
            return _dequantize(view, node, array, packed.scale, packed.zero_point, axis)
    return array


def _packed(node: Node, index: int) -> Packed | None:
    """Return how an input is read as a weight of integers, None if it is not."""
    operator = operator_of(node)
    packed = DEQUANTIZED if node.op_type == "DequantizeLinear" else operator.packed if operator is not None else None
    return packed if packed is not None and packed.weight == index else None


def _dequantize(view: View, node: Node, array: Array, scale: int | None, zero_point: int | None, axis: int) -> Array:
    """y = (q - z) * s, with s and z per tensor, per axis or per block of an axis."""
    numbers = array.astype(np.float32)
    block = int(node.attribute("block_size", 0))
    for place, combine in ((zero_point, np.subtract), (scale, np.multiply)):
        if place is None or not node.has_input(place):
            continue
        stored = view.root(node.inputs[place])
        if stored in view.parameters:
            factor = view.content(stored).astype(np.float32)
            numbers = combine(numbers, _spread(factor, numbers.shape, axis, block))
    return numbers


def _spread(factor: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    if factor.size == 1:
        return factor.reshape(())
    if block:
        return np.repeat(factor, block, axis=axis).take(np.arange(shape[axis]), axis=axis)
    fitted = [1] * len(shape)
    fitted[axis] = factor.size
    return factor.reshape(fitted)
