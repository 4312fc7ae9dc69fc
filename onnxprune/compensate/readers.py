"""Which nodes of a graph can be refitted, what each aims at, and where its bias goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx

from onnxprune.compensate.stages import dynamic_names, tensor_levels
from onnxprune.compensate.weights import Weights
from onnxprune.graph.bodies import reads
from onnxprune.operators.call import attributes_of
from onnxprune.operators.layouts import Layout
from onnxprune.operators.operator import Operator, operator_of
from onnxprune.types import Array, FloatArray

HIDDEN = 1e-6
"""Outputs scaled by less than this share of the largest scale are left as they are."""


@dataclass(frozen=True, eq=False)
class Sink:
    """Where the bias of a reader is stored: input `index` of `node`; index None: a bias has to be added there.

    bias of the reader = factor * stored + shift
    """

    node: onnx.NodeProto
    index: int | None
    stored: FloatArray
    factor: FloatArray | float = 1.0
    shift: FloatArray | float = 0.0

    @property
    def value(self) -> FloatArray:
        """The bias that is there."""
        return np.asarray(self.factor * self.stored + self.shift)

    def content(self, bias: FloatArray) -> FloatArray:
        """Return what to store for a bias; outputs that a factor of zero hides keep theirs."""
        factor = np.broadcast_to(self.factor, bias.shape)
        visible = np.abs(factor) > HIDDEN * np.abs(factor).max(initial=0.0)
        return np.where(visible, (bias - self.shift) / np.where(visible, factor, 1.0), self.stored)


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear layer: y = scale * (weight * x) + bias.

    like: an array of the type and shape of its weight. read: gives the values that this had when it was found.
    scale: (outs,) of a BatchNormalization or Mul by constants behind it.
    other, total: the other operand and the result of the Add behind it, whose error the reader may absorb.
    clamp: what follows shows only values between these bounds (Relu, Clip).
    """

    node: onnx.NodeProto
    x: str
    y: str
    weight_index: int
    like: Array
    read: Callable[[], Array]
    layout: Layout
    sink: Sink | None
    scale: FloatArray
    other: str = ""
    total: str = ""
    clamp: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """How reports name it."""
        return self.node.name or self.y

    @property
    def weight(self) -> Array:
        """The stored weight."""
        return self.read()

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Groups, outputs of each, features."""
        return self.layout.sizes(self.like.shape)

    @property
    def effective(self) -> FloatArray:
        """(groups, outs, features + 1) weights with the scale in them, the bias last (zero if there is none)."""
        matrix = self.layout.matrix(self.weight)
        column = (*matrix.shape[:2], 1)
        bias = self.sink.value if self.sink else np.zeros(column)
        return np.concatenate([matrix * self.scale.reshape(column), bias.reshape(column)], axis=2)

    def store(self, weights: Weights, effective: FloatArray) -> None:
        """Write new weights, given like `effective`, into the graph."""
        weights.change(self.node, self.weight_index, self.stored(effective))
        self.store_bias(weights, effective[:, :, -1].reshape(-1))

    def stored(self, effective: FloatArray) -> Array:
        """Return new weights, given like `effective`, as they are stored; outputs that a scale hides keep theirs."""
        scale = self.scale.reshape(*effective.shape[:2], 1)
        visible = np.abs(scale) > HIDDEN * np.abs(scale).max()
        matrix = effective[:, :, :-1]
        if not visible.all() or (scale != 1).any():
            old = self.layout.matrix(self.weight)
            matrix = np.where(visible, matrix / np.where(visible, scale, 1.0), old)
        return self.layout.weight(matrix, self.like.shape)

    def store_bias(self, weights: Weights, bias: FloatArray) -> None:
        """Write the bias (outs,), given like the last column of `effective`, into the graph."""
        if self.sink is None:
            return
        content = self.sink.content(bias)
        if self.sink.index is not None:
            weights.change(self.sink.node, self.sink.index, content)
            return
        stored = weights.like(self.node.input[self.weight_index])  # its type: `weight` may have been computed anew
        name = weights.add(f"{self.name}.bias", content.astype((self.like if stored is None else stored).dtype))
        self.sink.node.input.extend([""] * (3 - len(self.sink.node.input)))
        self.sink.node.input[2] = name

    def alone(self) -> Reader:
        """Return the same reader without a sum behind it."""
        return replace(self, other="", total="", clamp=None) if self.other else self

    @property
    def waits(self) -> tuple[str, ...]:
        """Tensors that must be there before it is refitted."""
        return (self.x, self.other) if self.other else (self.x,)


class Consumers:
    """Who reads each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._table: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(reads(node)):
                self._table.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}

    def all(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return self._table.get(name, [])

    def is_output(self, name: str) -> bool:
        """Tell whether a tensor is an output of the graph."""
        return name in self._outputs

    def only(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, if it is of that kind and the tensor is no graph output."""
        nodes = self.all(name)
        lone = len(nodes) == 1 and nodes[0].op_type == op_type and not nodes[0].domain and name not in self._outputs
        return nodes[0] if lone else None

    def clamp(self, name: str, weights: Weights) -> tuple[float, float] | None:
        """Return the widest bounds that the readers of a tensor show of it, None if one shows everything."""
        bounds = [_bounds(node, weights) for node in self.all(name)]
        if not bounds or name in self._outputs or any(bound is None for bound in bounds):
            return None
        return min(b[0] for b in bounds if b), max(b[1] for b in bounds if b)


def find_readers(weights: Weights) -> list[Reader]:
    """Return the readers of a graph in topological order."""
    graph = weights.model.proto.graph
    dynamic = dynamic_names(graph)
    consumers = Consumers(graph)
    readers = [r for node in graph.node if (r := _reader(node, weights, consumers, dynamic)) is not None]
    return _with_sums(readers, weights, consumers, dynamic)


def _reader(node: onnx.NodeProto, weights: Weights, consumers: Consumers, dynamic: set[str]) -> Reader | None:
    for place in _places(node, weights, dynamic):
        if not weights.can_change(node.input[place.index]):
            continue
        found = _sink(node, place, weights, consumers)
        if found is not None:
            sink, scale, y = _scaled(*found, place, weights, consumers)
            return Reader(node, place.x, y, place.index, place.like, place.read, place.layout, sink, scale)
    return None


def plain_reader(node: onnx.NodeProto, weights: Weights, consumers: Consumers, dynamic: set[str]) -> Reader | None:
    """Return a linear layer as it stands, whoever else uses its constants."""
    for place in _places(node, weights, dynamic):
        found = _sink(node, place, weights, consumers, shared=True)
        if found is not None:
            sink, y = found
            scale = np.ones(place.outs)
            return Reader(node, place.x, y, place.index, place.like, place.read, place.layout, sink, scale)
    return None


@dataclass(frozen=True, eq=False)
class _Place:
    """Input `index` of a node is a constant matrix, x is what it is multiplied with."""

    operator: Operator
    x: str
    index: int
    like: Array
    read: Callable[[], Array]
    layout: Layout

    @property
    def outs(self) -> int:
        """Number of outputs, of all groups."""
        groups, outs, _ = self.layout.sizes(self.like.shape)
        return groups * outs


def _places(node: onnx.NodeProto, weights: Weights, dynamic: set[str]) -> Iterator[_Place]:
    """Yield the inputs of a node that are constants and meet a computed tensor; recurrent ones have a refit apart."""
    operator = operator_of(node)
    if operator is None or operator.layout is None or operator.gates or len(node.input) < 2:
        return
    attributes = attributes_of(node)
    for met in operator.contractions(attributes):
        x, name = node.input[met.data], node.input[met.weight]
        like = weights.like(name) if name not in dynamic and x in dynamic else None
        layout = operator.layout(attributes, like.shape, met.weight) if like is not None else None
        if like is not None and layout is not None:
            yield _Place(operator, x, met.weight, like, partial(_values, weights, name), layout)


def _values(weights: Weights, name: str) -> Array:
    found = weights.value(name)
    if found is None:
        raise ValueError(f"{name} is no constant")
    return found


def _sink(
    node: onnx.NodeProto, place: _Place, weights: Weights, consumers: Consumers, shared: bool = False
) -> tuple[Sink | None, str] | None:
    """Return where the bias goes (None: nowhere) and the tensor behind it; None if the bias cannot be known.

    Args:
        shared: a bias counts though its other users do not allow to change it.
    """
    y, outs, index = node.output[0], place.outs, place.operator.bias
    if index is not None:
        factor = float(attributes_of(node).get(place.operator.factor, 1.0))
        if len(node.input) <= index or not node.input[index]:
            return Sink(node, None, np.zeros(outs), factor or 1.0), y
        value = _vector(node.input[index], (outs,), weights, shared)
        return (Sink(node, index, value, factor), y) if value is not None and factor else None
    add = consumers.only(y, "Add")
    if add is not None:
        side = 1 if add.input[0] == y else 0
        value = _vector(add.input[side], (outs,) if place.index == 1 else (outs, 1), weights, shared)
        if value is not None:
            return Sink(add, side, value), add.output[0]
    return None, y


def _scaled(
    sink: Sink | None, y: str, place: _Place, weights: Weights, consumers: Consumers
) -> tuple[Sink | None, FloatArray, str]:
    """Take a BatchNormalization or a Mul by constants behind the reader into it."""
    outs = place.outs
    norm = consumers.only(y, "BatchNormalization")
    if norm is not None:
        values = [weights.value(name) for name in norm.input[1:5]]
        if all(v is not None and v.shape == (outs,) for v in values):
            gain, offset, mean, variance = (np.asarray(v, np.float64) for v in values)
            epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
            scale = gain / np.sqrt(variance + epsilon)
            if sink is not None and sink.index is not None:
                return _through(sink, scale, offset - scale * mean), scale, norm.output[0]
            if weights.can_change(norm.input[2]):
                return Sink(norm, 2, offset, 1.0, -scale * mean), scale, norm.output[0]
    gain_node = consumers.only(y, "Mul")
    if gain_node is not None and sink is not None and sink.index is not None:
        along = (outs, *(1,) * (place.like.ndim - 2))
        factor = weights.value(gain_node.input[1 if gain_node.input[0] == y else 0])
        if factor is not None and factor.size == outs and factor.shape[-len(along) :] == along:
            scale = factor.reshape(-1).astype(np.float64)
            return _through(sink, scale, 0.0), scale, gain_node.output[0]
    return sink, np.ones(outs), y


def _through(sink: Sink, scale: FloatArray, offset: FloatArray | float) -> Sink:
    return replace(sink, factor=sink.factor * scale, shift=sink.shift * scale + offset)


def _vector(name: str, shape: tuple[int, ...], weights: Weights, shared: bool = False) -> FloatArray | None:
    """Return a constant that is one value for each output, and may be changed, as a flat array."""
    value = weights.value(name)
    if value is None or value.size != shape[0] or value.shape[-len(shape) :] != shape:
        return None
    if not shared and not weights.can_change(name):
        return None
    return value.reshape(-1).astype(np.float64)


def _with_sums(readers: list[Reader], weights: Weights, consumers: Consumers, dynamic: set[str]) -> list[Reader]:
    """Let one reader before each Add of two branches absorb the error of the other branch: the later one."""
    levels = tensor_levels(weights.model.proto.graph, {reader.node.output[0]: reader.waits for reader in readers})
    before: dict[str, list[tuple[int, int, int]]] = {}
    adds: dict[int, onnx.NodeProto] = {}
    for position, reader in enumerate(readers):
        add = consumers.only(reader.y, "Add")
        if add is not None and all(name in dynamic for name in add.input) and add.input[0] != add.input[1]:
            rank = (levels.get(reader.y, 0), int(np.prod(reader.like.shape)), position)
            before.setdefault(add.output[0], []).append(rank)
            adds[position] = add
    chosen = {max(ranks)[2] for ranks in before.values()}
    return [_finish(r, adds.get(p) if p in chosen else None, consumers, weights) for p, r in enumerate(readers)]


def _finish(reader: Reader, add: onnx.NodeProto | None, consumers: Consumers, weights: Weights) -> Reader:
    if add is None:
        return replace(reader, clamp=consumers.clamp(reader.y, weights))
    other = add.input[1] if add.input[0] == reader.y else add.input[0]
    total = add.output[0]
    return replace(reader, other=other, total=total, clamp=consumers.clamp(total, weights))


def _bounds(node: onnx.NodeProto, weights: Weights) -> tuple[float, float] | None:
    if node.op_type == "Relu" and not node.domain:
        return 0.0, np.inf
    if node.op_type != "Clip" or node.domain:
        return None
    bounds = {a.name: a.f for a in node.attribute}
    values = [bounds.get("min", -np.inf), bounds.get("max", np.inf)]
    for index, name in enumerate(node.input[1:3]):
        if name:
            value = weights.value(name)
            if value is None:
                return None
            values[index] = float(value.reshape(-1)[0])
    return values[0], values[1]
