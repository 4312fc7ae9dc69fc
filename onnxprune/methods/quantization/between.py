"""What static mode leaves in float because eight bits buy nothing there or cost much: recognised by the flow of data.

Layers (Conv, Gemm, MatMul with a stored matrix) are worth it, and so is what lies between two of them: then integers go
from one to the next. Sums and products of a written-out normalisation, softmax or reduction lie between float nodes, so
they stay as they are. A transform whose squares are summed and then rooted or logged (a spectrum) stays float too: a
root and a logarithm make the rounding of small values large.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnx import TensorProto

from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import captured_names
from onnxprune.operators.operator import named

LAYERS = frozenset({*named(lambda operator: operator.static), "Gather"})
CLAMPS = frozenset({"Relu", "Clip", "LeakyRelu"})
CARRIERS = frozenset(
    "Identity Cast Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather Concat Pad Expand Dropout".split()
)
SUMS = frozenset(
    "Add Sum ReduceSum ReduceMean Mean AveragePool GlobalAveragePool Max Min Clip Relu Where MatMul Conv".split()
)
"""What a spectrum may pass between its squares and its root: sums, floors, banks of filters."""
ROOTS = frozenset("Sqrt Log".split())
SQUARES = frozenset("Abs ReduceSumSquare ReduceL2 ReduceLogSum".split())
ROOTED = frozenset("ReduceL2 ReduceLogSum".split())


@dataclass(frozen=True, eq=False)
class Flow:
    """Who makes and who reads the tensors of a prepared graph; nodes are numbers."""

    graph: onnx.GraphProto

    @cached_property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.graph.node)

    @cached_property
    def stored(self) -> Mapping[str, TensorProto]:
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def maker(self) -> Mapping[str, int]:
        return {name: place for place, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def readers(self) -> Mapping[str, list[int]]:
        table: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                table.setdefault(name, []).append(place)
        return table

    @cached_property
    def fixed(self) -> set[str]:
        """Names that nodes have, of tensors that are stored or made from stored ones alone."""
        known = set(self.stored)
        for node in self.nodes:
            if node.op_type == "Constant" or (node.input and all(name in known or not name for name in node.input)):
                known.update(node.output)
        return known

    def data(self, place: int) -> list[str]:
        """Return the computed inputs of a node."""
        return [name for name in self.nodes[place].input if name and name not in self.fixed]

    def before(self, place: int) -> Iterator[int]:
        """Yield the nodes whose results a node reads; -1 stands for an input of the graph."""
        for name in self.data(place):
            yield self.maker.get(name, -1)

    def behind(self, place: int) -> Iterator[int]:
        """Yield the nodes that read what a node makes."""
        for name in self.nodes[place].output:
            yield from self.readers.get(name, ())

    def is_layer(self, place: int) -> bool:
        """Tell whether a node multiplies what is computed with a stored tensor of single precision."""
        node = self.nodes[place]
        if node.op_type not in LAYERS or node.domain not in ("", "ai.onnx"):
            return False
        names = node.input[1:2] if node.op_type != "MatMul" else node.input[:2]
        if node.op_type == "Gather":  # a table that is a matrix elsewhere has a scale for each row or column of it
            alone = all(self.nodes[other].op_type == "Gather" for other in self.readers[node.input[0]])
            return node.input[0] in self.stored and alone and _is_table(self.stored[node.input[0]])
        return any(name in self.stored and self.stored[name].data_type == TensorProto.FLOAT for name in names)


def kept_float(graph: onnx.GraphProto, operators: Collection[str], left: Collection[str]) -> set[str]:
    """Return the names of the nodes that static mode leaves in float besides those in `left`.

    Args:
        operators: what it quantizes at all.
    """
    flow = Flow(graph)
    spectra = _spectra(flow)
    worth = {
        place
        for place, node in enumerate(flow.nodes)
        if flow.is_layer(place) and place not in spectra and node.name not in left and node.op_type in operators
    }
    shown = captured_names(graph)
    linking = {
        place
        for place, node in enumerate(flow.nodes)
        if node.op_type in operators
        and (node.op_type not in LAYERS or node.op_type == "Gather")
        and not flow.is_layer(place)
        and node.name not in left
        and not shown & set(node.output)
    }
    linking = _linking(flow, worth, linking)
    return {node.name for place, node in enumerate(flow.nodes) if place not in worth | linking} - {*left}


def _linking(flow: Flow, worth: set[int], linking: set[int]) -> set[int]:
    """Return the nodes that take integers and give them on: all they read is quantized, and something behind them is.

    A clamp right behind a layer is a part of it.
    """
    while True:
        whole = worth | linking
        gone = {
            place
            for place in linking
            if not all(other in whole for other in flow.before(place))
            or not flow.data(place)
            or not (
                any(other in whole for other in flow.behind(place))
                or (flow.nodes[place].op_type in CLAMPS and all(other in worth for other in flow.before(place)))
            )
        }
        if not gone:
            return linking
        linking = linking - gone


def _spectra(flow: Flow) -> set[int]:
    """Return the layers whose results are squared, summed and rooted or logged, and the filters on that way."""
    found: set[int] = set()
    for place in range(len(flow.nodes)):
        if flow.is_layer(place):
            for square in _reached(flow, place, CARRIERS):
                if _squares(flow, square):
                    way = _to_root(flow, square)
                    if way is not None:
                        found |= {place, *(other for other in way if flow.is_layer(other))}
    return found


def _squares(flow: Flow, place: int) -> bool:
    node = flow.nodes[place]
    if node.op_type == "Mul":
        return str(node.input[0]) == str(node.input[1])
    if node.op_type == "Pow":
        return node.input[0] not in flow.fixed
    return node.op_type in SQUARES


def _to_root(flow: Flow, square: int) -> set[int] | None:
    """Return the nodes between a square and a root or logarithm that goes on as a value; None if there is none.

    A root that divides (through an epsilon or a reciprocal) belongs to a normalisation.
    """
    if flow.nodes[square].op_type in ROOTED:
        return None if _divides(flow, square) else {square}
    way = _reached(flow, square, CARRIERS | SUMS)
    roots = [place for place in way if flow.nodes[place].op_type in ROOTS | {"Pow"}]
    return way if any(not _divides(flow, place) for place in roots) else None


def _divides(flow: Flow, place: int) -> bool:
    """Tell whether what a node makes is what something is divided by."""
    near = {place, *_reached(flow, place, CARRIERS | {"Add", "Max", "Clip"})}
    for other in near:
        node = flow.nodes[other]
        if node.op_type == "Reciprocal" or (node.op_type == "Pow" and other != place):
            return True
        if node.op_type == "Div" and flow.maker.get(node.input[1], -1) in near:
            return True
    power = flow.nodes[place]  # a power of a negative number divides by itself
    return power.op_type == "Pow" and _is_negative(flow, power.input[1])


def _is_negative(flow: Flow, name: str) -> bool:
    return name in flow.stored and bool((to_array(flow.stored[name]) < 0).sum() > 0)


def _is_table(tensor: TensorProto) -> bool:
    """Tell whether a stored tensor has a row for each of many things, worth storing in fewer bits."""
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2


def _reached(flow: Flow, start: int, through: Collection[str]) -> set[int]:
    """Return the nodes behind one, as far as the way to them leads through these operators alone."""
    found: set[int] = set()
    todo = [start]
    while todo:
        for other in flow.behind(todo.pop()):
            if other not in found:
                found.add(other)
                if flow.nodes[other].op_type in through:
                    todo.append(other)
    return found
