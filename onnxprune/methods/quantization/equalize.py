"""Makes the channels between two layers equally wide before they share a scale: exact, but for rounding.

With f(s x) = s f(x) for s > 0 between two layers, row i of the first (and its bias) is divided by s_i and column i of
the second multiplied by it. Ranges r1_i of the first and r2_i of the second become equal with
s_i = sqrt(r1_i / r2_i).
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), equation 11.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import captured_names
from onnxprune.operators.call import attributes_of
from onnxprune.operators.operator import Contraction, operator_of
from onnxprune.types import Array

INVARIANT = frozenset("Relu LeakyRelu PRelu Identity MaxPool AveragePool GlobalAveragePool GlobalMaxPool".split())
"""f(s x) = s f(x) channel by channel. Clip is not: its upper bound would have to move."""

SWEEPS = 20
ENOUGH = 1e-2
"""No more sweeps when no channel is moved by more than this share."""

LEAST, MOST = 1e-3, 1e3
"""Bounds of s in one sweep."""


@dataclass(frozen=True)
class _Pair:
    """Stored tensors with the axis of the channels: those that write them, and those that read them."""

    writers: tuple[tuple[str, int], ...]
    readers: tuple[tuple[str, int], ...]


def equalize(proto: onnx.ModelProto, left: Collection[str]) -> int:
    """Equalize a prepared model in place; return how many tensors between layers were touched.

    Args:
        left: names of nodes that stay float: they are no reason to move ranges.
    """
    stored = {t.name: t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    pairs = _pairs(proto.graph, stored, left)
    arrays = {name: to_array(stored[name]).astype(np.float64) for p in pairs for name, _ in (*p.writers, *p.readers)}
    for _ in range(SWEEPS if pairs else 0):
        if max([_sweep(pair, arrays) for pair in pairs]) < ENOUGH:
            break
    for name, array in arrays.items():
        stored[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return len(pairs)


def _sweep(pair: _Pair, arrays: dict[str, Array]) -> float:
    """Equalize one pair and return the largest change, as a share."""
    first = _ranges(arrays[pair.writers[0][0]], pair.writers[0][1])
    second = np.max([_ranges(arrays[name], axis) for name, axis in pair.readers], axis=0)
    usable = (first > 0) & (second > 0)
    factor = np.sqrt(np.where(usable, first, 1) / np.where(usable, second, 1))
    factor = np.where(usable, np.clip(factor, LEAST, MOST), 1.0)
    for name, axis in pair.writers:
        arrays[name] = arrays[name] / _along(factor, axis, arrays[name].ndim)
    for name, axis in pair.readers:
        arrays[name] = arrays[name] * _along(factor, axis, arrays[name].ndim)
    return float(np.abs(factor - 1).max())


def _ranges(array: Array, axis: int) -> Array:
    return np.asarray(np.abs(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1).max(axis=1))


def _along(factor: Array, axis: int, axes: int) -> Array:
    return factor.reshape([-1 if index == axis % axes else 1 for index in range(axes)])


def _pairs(graph: onnx.GraphProto, stored: Mapping[str, onnx.TensorProto], left: Collection[str]) -> list[_Pair]:
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outer = {value.name for value in graph.output} | captured_names(graph)
    own = {name: tensor for name, tensor in stored.items() if len(users.get(name, ())) == 1 and name not in outer}
    pairs = []
    for node in graph.node:
        writers = _writers(node, own) if node.name not in left else ()
        readers = _readers(node.output[0], users, outer, own, left) if writers else ()
        if readers:
            pairs.append(_Pair(writers, readers))
    return pairs


def _writers(node: onnx.NodeProto, own: Mapping[str, onnx.TensorProto]) -> tuple[tuple[str, int], ...]:
    """Return weight and bias of a layer with the axis of its outputs; nothing if they are not its own."""
    names = [name for name in node.input[1:] if name]
    met = _contraction(node)
    if met is None or not names or any(name not in own for name in names):
        return ()
    axis = met.writes
    size = own[names[0]].dims[axis]
    if any(list(own[name].dims) != [size] for name in names[1:]):
        return ()
    return (names[0], axis), *((name, 0) for name in names[1:])


def _readers(
    tensor: str,
    users: Mapping[str, list[onnx.NodeProto]],
    outer: Collection[str],
    own: Mapping[str, onnx.TensorProto],
    left: Collection[str],
) -> tuple[tuple[str, int], ...]:
    """Return the weights that read a tensor, through operators that keep scales; nothing if something else does."""
    found: list[tuple[str, int]] = []
    carried = [tensor]
    for tensor in carried:
        for user in users.get(tensor, ()):
            if user.domain or tensor in outer or user.input[0] != tensor or user.name in left:
                return ()
            carries = user.op_type in INVARIANT and len([name for name in user.output if name]) == 1
            below = () if carries else _read(user, own)
            if not below and not (carries and users.get(user.output[0])):
                return ()
            found += below
            carried += [user.output[0]] if carries else []
    return tuple(found)


def _read(node: onnx.NodeProto, own: Mapping[str, onnx.TensorProto]) -> tuple[tuple[str, int], ...]:
    """Return the weight of a layer with the axis of its inputs."""
    met = _contraction(node)
    if met is None or met.data_axis != 1 or node.input[1] not in own:
        return ()
    if met.groups == 1:
        return ((node.input[1], met.reads),)
    dims = own[node.input[1]].dims
    return ((node.input[1], met.writes),) if met.groups == dims[met.writes] and dims[met.reads] == 1 else ()


def _contraction(node: onnx.NodeProto) -> Contraction | None:
    """Return which axes meet in a layer that runs on integers and has a bias of its own."""
    operator = operator_of(node)
    if operator is None or not operator.static or operator.bias is None:
        return None
    return operator.contractions(attributes_of(node))[0]
