"""Weights that know their grid: layer by layer, on the inputs that the quantized network gives, towards the original.

Each layer is refitted to give on quantized inputs what the original gives, then rounded so that the error of a weight
is made up for by those after it and by the bias. Nothing stays exact: the squared error on the data is made small.
Source: Frantar et al., GPTQ (2022), algorithm 1; Nagel et al. (2019), equation 21, for the bias.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.compensate.lstsq import fit, moments
from onnxprune.compensate.problem import RowBlocks
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.refit import LayerError, RefitOptions, Walk
from onnxprune.compensate.ridge import Moments
from onnxprune.compensate.weights import Weights
from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.rounding import upper_factor
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

FEEDS = 32
"""Batches that are held: each has at most `statistics.batch.ACTIVATION_BYTES` of activations, or one sample."""

SMALL = 1 << 22
"""Models up to this many weights are fitted without being asked to, in 18 CPU seconds or less so far.

The time grows with the cube of a layer's width.
"""

BLOCK = 128
"""Columns whose errors are passed on to the rest at once."""


@dataclass(frozen=True)
class Rounded:
    """New values of a layer: its weight, on the grid, and its bias.

    bias: None where it has none. target: the stored tensor of the bias; "" where the node has yet to get one.
    """

    weight: Array
    bias: Array | None = None
    target: str = ""


def rounded(
    original: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Sequence[Feed], threads: int = 0
) -> dict[str, Rounded]:
    """Return new values by the name of the node, for each quantized Conv, Gemm and MatMul with a weight in s8.

    Args:
        original: prepared, in float.
        quantized: the same as QDQ, whose scales tell what has a grid.
        feeds: what both networks make of the first FEEDS of them is held, layer by layer.
    """
    proto = with_rounded_activations(original, quantized)
    walk = GridWalk(Model(original), Weights(Model(proto)), list(feeds[:FEEDS]), _grids(quantized), threads)
    walk.run()
    return walk.found


def is_small(proto: onnx.ModelProto) -> bool:
    """Tell whether a model has so few weights that fitting them takes seconds."""
    return sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer) <= SMALL


def put(proto: onnx.ModelProto, found: Mapping[str, Rounded], left: Collection[str]) -> None:
    """Give the layers of a prepared model their new values, in place, but for those that stay float."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken = set(stored) | {name for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.name not in found or node.name in left:
            continue
        new = found[node.name]
        _set(stored[node.input[1]], new.weight)
        if new.target:
            _set(stored[new.target], np.asarray(new.bias))
        elif new.bias is not None:
            name = free_name(f"{node.name}.bias", taken)
            add_to(proto.graph, name, new.bias)
            node.input.append(name)


def _set(tensor: TensorProto, array: Array) -> None:
    array = np.ascontiguousarray(array, np.float32).reshape(tuple(tensor.dims))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


@dataclass(frozen=True)
class Grid:
    """The integers of a weight run from -top to top; `shared`: the whole tensor has one scale."""

    top: int
    shared: bool

    def scales(self, matrix: Array) -> Array:
        """Return the scale of each row of (groups, outs, features) weights."""
        high = np.abs(matrix).max(axis=2)
        high = np.full_like(high, high.max()) if self.shared else high
        return np.asarray(np.where(high > 0, high, 1.0) / self.top)


class GridWalk(Walk):
    """Both networks side by side: every layer that has a grid is refitted and put on it."""

    def __init__(
        self, original: Model, weights: Weights, feeds: list[Feed], grids: Mapping[str, Grid], threads: int
    ) -> None:
        """Take grids by the name of the node."""
        self._grids = grids
        self.found: dict[str, Rounded] = {}
        super().__init__(original, weights, {}, feeds, RefitOptions(mix=False, threads=threads or None))

    def suited(self, readers: list[Reader]) -> list[Reader]:
        """Return the layers that have a grid."""
        return [reader for reader in readers if reader.node.name in self._grids and _is_plain(reader, self._weights)]

    def change(self, reader: Reader) -> LayerError:
        problem, grid = self.problem(reader), self._grids[reader.node.name]
        blocks = RowBlocks(problem, self._options.lstsq)
        result = fit(problem, self._options.lstsq)
        wanted = result.weights if result.used else problem.start
        scale = grid.scales(wanted[:, :, :-1])
        if blocks.is_wide:  # no room for its second moment
            weight = np.rint(wanted[:, :, :-1] / scale[:, :, None]) * scale[:, :, None]
            effective = np.concatenate([weight, wanted[:, :, -1:]], axis=2)
        else:
            train, held = moments(blocks, problem)
            effective = on_grid(wanted, scale, train + held, grid.top, problem.free_bias)
        reader.store(self._weights, effective)
        weight = reader.layout.weight(effective[:, :, :-1], reader.like.shape).astype(np.float32)
        self.found[reader.node.name] = Rounded(weight, *_bias(reader, effective))
        level = max(result.level, 1e-30)
        return LayerError(reader.name, reader.node.op_type, result.before / level, result.after / level, True)


def _bias(reader: Reader, effective: Array) -> tuple[Array | None, str]:
    """Return what to store for the bias of a layer, and where."""
    sink = reader.sink
    if sink is None:
        return None, ""
    content = sink.content(effective[:, :, -1].reshape(-1)).astype(np.float32)
    return content, sink.node.input[sink.index] if sink.index is not None else ""


def on_grid(wanted: Array, scale: Array, found: Moments, top: int, free_bias: bool) -> Array:
    """Return (groups, outs, features + 1) weights on the grid, and the bias that keeps the mean."""
    count = max(found.count, 1.0)
    parts = []
    for group, matrix in enumerate(wanted[:, :, :-1]):
        mean = found.gram[group, -1, :-1] / count
        gram = found.gram[group, :-1, :-1] / count
        gram = gram - np.outer(mean, mean) if free_bias else gram
        weight = scale[group][:, None] * codes(matrix, scale[group], gram, top)
        shift = (matrix - weight) @ mean if free_bias else np.zeros(len(matrix))
        parts.append(np.concatenate([weight, (wanted[group, :, -1] + shift)[:, None]], axis=1))
    return np.stack(parts)


def codes(matrix: Array, scale: Array, gram: Array, top: int) -> Array:
    """Return integers from -top to top for a matrix (outs, features), given the second moment of what it multiplies.

    The largest weight of a row keeps its code: from it the quantizer finds the scale again.
    """
    upper = upper_factor(gram)
    left = matrix.astype(np.float64)
    largest = np.abs(matrix).argmax(axis=1)
    pinned = np.rint(matrix[np.arange(len(matrix)), largest] / scale)
    result = np.zeros_like(left)
    for start in range(0, left.shape[1], BLOCK):
        end = min(start + BLOCK, left.shape[1])
        errors = np.zeros((len(left), end - start))
        for column in range(start, end):
            code = np.clip(np.rint(left[:, column] / scale), -top, top)
            code = np.where(largest == column, pinned, code)
            result[:, column] = code
            errors[:, column - start] = (left[:, column] - code * scale) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(errors[:, column - start], upper[column, column + 1 : end])
        left[:, end:] -= errors @ upper[start:end, end:]
    return result


def with_rounded_activations(original: onnx.ModelProto, quantized: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float model whose activations are rounded as in the quantized one.

    A branch that only an Add reads is left as it is, so that the layer before it can make up for the other branch.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    theirs = {node.name: set(node.input) for node in quantized.graph.node}
    taken = {*readers, *(tensor.name for tensor in proto.graph.initializer)}
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for node in quantized.graph.node:
        name = node.input[0] if node.op_type == "QuantizeLinear" else ""
        users = [user for user in readers.get(name, ()) if name not in theirs.get(user.name, ())]
        if not users or any(part not in stored for part in node.input[1:]):
            continue
        if len(users) == 1 and users[0].op_type == "Add":
            continue
        parts = [free_name(f"{name}.{part}", taken) for part in ("scale", "zero", "codes", "rounded")]
        for part, source in zip(parts, node.input[1:], strict=False):
            add_to(proto.graph, part, to_array(stored[source]))
        given = parts[: len(node.input) - 1]
        pairs[name] = [
            helper.make_node("QuantizeLinear", [name, *given], [parts[2]]),
            helper.make_node("DequantizeLinear", [parts[2], *given], [parts[3]]),
        ]
        for user in users:
            user.input[:] = [parts[3] if other == name else other for other in user.input]
    _insert(proto.graph, pairs)
    return proto


def _insert(graph: onnx.GraphProto, pairs: Mapping[str, list[onnx.NodeProto]]) -> None:
    nodes = [new for value in graph.input for new in pairs.get(value.name, ())]
    for node in graph.node:
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        nodes.extend(new for name in node.output for new in pairs.get(name, ()))
    del graph.node[:]
    graph.node.extend(nodes)


def _grids(quantized: onnx.ModelProto) -> dict[str, Grid]:
    """Return the grid of each layer with a weight in s8."""
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    grids = {}
    for node in quantized.graph.node:
        maker = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in stored:
            continue
        if stored[maker.input[0]].data_type == TensorProto.INT8:
            top = int(np.abs(to_array(stored[maker.input[0]]).astype(np.int32)).max())
            grids[node.name] = Grid(max(top, 1), not stored[maker.input[1]].dims)
    return grids


def _is_plain(reader: Reader, weights: Weights) -> bool:
    """Tell whether weight and bias are stored tensors of this layer alone, with nothing between them and the node."""
    sink = reader.sink
    names = [reader.node.input[1]] + ([sink.node.input[sink.index]] if sink is not None and sink.index else [])
    own = all(weights.is_own(name) for name in names)
    return reader.weight_index == 1 and own and bool((reader.scale == 1).all())
