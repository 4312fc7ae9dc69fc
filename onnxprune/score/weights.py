"""Weights as numbers: stored floats as they are, stored integers multiplied out with their scale and zero point."""

from __future__ import annotations

import numpy as np

from onnxprune.graph.view import Node, View
from onnxprune.types import Array

QUANTIZED_READERS: dict[tuple[str, int], tuple[int | None, int | None, int | None]] = {
    ("DequantizeLinear", 0): (1, 2, None),
    ("QLinearConv", 3): (4, 5, 0),
    ("QLinearMatMul", 3): (4, 5, -1),
    ("ConvInteger", 1): (None, 3, 0),
    ("MatMulInteger", 1): (None, 3, -1),
}
"""(operator, input of the weight) -> inputs of its scale and zero point, and their axis (None: an attribute)."""


def read_weight(view: View, key: str) -> Array:
    """Return a parameter as numbers; an integer weight as (q - zero point) * scale where its reader says how.

    Args:
        view: the model.
        key: a key of `view.parameters`.
    """
    array = view.model.array(view.parameters[key].tensor)
    if array.dtype.kind == "f" or array.size <= 1:
        return array
    for node, index in view.readers.get(key, []):
        places = QUANTIZED_READERS.get((node.op_type, index))
        if places is not None:
            scale, zero_point, axis = places
            axis = node.attribute("axis", 1) if axis is None else axis
            return _dequantize(view, node, array, scale, zero_point, axis)
    return array


def _dequantize(view: View, node: Node, array: Array, scale: int | None, zero_point: int | None, axis: int) -> Array:
    """y = (q - z) * s, with s and z per tensor, per axis or per block of an axis."""
    numbers = array.astype(np.float32)
    block = int(node.attribute("block_size", 0))
    for place, combine in ((zero_point, np.subtract), (scale, np.multiply)):
        if place is None or not node.has_input(place):
            continue
        parameter = view.parameters.get(view.root(node.inputs[place]))
        if parameter is not None:
            factor = view.model.array(parameter.tensor).astype(np.float32)
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
