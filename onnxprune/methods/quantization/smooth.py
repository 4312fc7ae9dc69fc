"""Moves the outliers of activations into the weights before a normalisation's products are quantized: exact.

With s_j = max|X_j|^a / max|W_j|^(1-a) over the channels j of what a LayerNormalization (or a scale and shift) hands to
matrix products, its scale and shift are divided by s and row j of each matrix is multiplied by s_j.
Source: Xiao et al., SmoothQuant (2022), equation 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import captured_names
from onnxprune.methods.quantization.observe import largest
from onnxprune.types import Array

Feeds = Mapping[str, Array]

STRENGTH = 0.5
"""a: how much of the difficulty goes from the activations to the weights."""

LEAST, MOST = 1e-3, 1e3
"""Bounds of s."""


@dataclass(frozen=True)
class _Site:
    """A tensor that only products read: what scales it, and the matrices with their input axis."""

    tensor: str
    scales: tuple[str, ...]
    matrices: tuple[tuple[str, int], ...]


def smooth(proto: onnx.ModelProto, feeds: Iterable[Feeds], left: Iterable[str], threads: int = 0) -> int:
    """Smooth a prepared model in place; return how many tensors were smoothed.

    Args:
        left: names of nodes that stay float: what they read stays as it is.
    """
    sites = _sites(proto, set(left))
    if not sites:
        return 0
    high = largest(proto, [site.tensor for site in sites], feeds, threads)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for site in sites:
        arrays = {name: np.moveaxis(to_array(stored[name]), axis, 0) for name, axis in site.matrices}
        weight = np.max([np.abs(a).reshape(len(a), -1).max(axis=1) for a in arrays.values()], axis=0)
        activation = high[site.tensor]
        usable = (weight > 0) & (activation > 0)
        ratio = np.where(usable, activation, 1) ** STRENGTH / np.where(usable, weight, 1) ** (1 - STRENGTH)
        factor = np.where(usable, np.clip(ratio, LEAST, MOST), 1).astype(np.float32)
        for name in site.scales:
            _set(stored[name], to_array(stored[name]) / factor)
        for name, axis in site.matrices:
            _set(stored[name], np.moveaxis((arrays[name].T * factor).T, 0, axis))
    return len(sites)


def _sites(proto: onnx.ModelProto, left: set[str]) -> list[_Site]:
    graph = proto.graph
    stored = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}
    outer = {value.name for value in graph.output} | captured_names(graph)
    sites = []
    for tensor, users in readers.items():
        if tensor in outer or tensor not in makers or any(user.name in left for user in users):
            continue
        matrices = [_matrix(user, tensor, stored) for user in users]
        scales = _scales(makers[tensor], makers, stored, readers)
        names = [*scales, *(found[0] for found in matrices if found)]
        alone = all(len(readers[name]) == 1 for name in names)
        if scales and all(matrices) and alone:
            sites.append(_Site(tensor, tuple(scales), tuple(found for found in matrices if found)))
    return sites


def _matrix(user: onnx.NodeProto, tensor: str, stored: Mapping[str, onnx.TensorProto]) -> tuple[str, int] | None:
    """Return the matrix that a node multiplies the tensor with, and its axis of inputs."""
    if user.op_type not in ("MatMul", "Gemm") or user.input[0] != tensor or user.input[1] not in stored:
        return None
    flags = {a.name: a.i for a in user.attribute}
    if len(stored[user.input[1]].dims) != 2 or flags.get("transA"):
        return None
    return user.input[1], 1 if flags.get("transB") else 0


def _scales(
    maker: onnx.NodeProto,
    makers: Mapping[str, onnx.NodeProto],
    stored: Mapping[str, onnx.TensorProto],
    readers: Mapping[str, list[onnx.NodeProto]],
) -> list[str]:
    """Return the stored vectors that scale and shift what a node makes; none if it is not of that kind."""
    if maker.op_type == "LayerNormalization":
        names = [name for name in maker.input[1:] if name]
        return names if all(_is_vector(name, stored) for name in names) else []
    found = []
    if maker.op_type == "Add" and (shift := _constant(maker, stored)):
        found.append(shift)
        other = next(name for name in maker.input if name != shift)
        if other not in makers or len(readers[other]) != 1:
            return []
        maker = makers[other]
    if maker.op_type == "Mul" and (scale := _constant(maker, stored)):
        return [*found, scale]
    return []


def _constant(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> str | None:
    names = [name for name in node.input if _is_vector(name, stored)]
    return names[0] if len(names) == 1 else None


def _is_vector(name: str, stored: Mapping[str, onnx.TensorProto]) -> bool:
    return name in stored and len(stored[name].dims) == 1 and stored[name].dims[0] > 1


def _set(tensor: onnx.TensorProto, array: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), tensor.name))
