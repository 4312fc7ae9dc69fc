"""Where a network can be cut in two: tensors through which all that weights have a part in goes.

What is made of inputs alone (masks, places, sizes) may pass beside such a tensor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.compensate.stages import dynamic_names, embedded
from onnxprune.graph.bodies import reads
from onnxprune.graph.model import Model
from onnxprune.operators.call import attributes_of
from onnxprune.operators.operator import operator_of
from onnxprune.types import Array


@dataclass(frozen=True)
class Joint:
    """A cut behind so many of the nodes that depend on an input.

    name: the tensor that goes on; "" before the first node. beside: what else is read behind it.
    """

    name: str
    nodes: int
    beside: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What a block behind the cut is given."""
        return [name for name in (self.name, *self.beside) if name]


class Chain:
    """A graph as a chain of blocks."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._dynamic = dynamic_names(graph)
        self.nodes = [node for node in graph.node if any(name in self._dynamic for name in node.output)]
        self._static = [node for node in graph.node if not any(name in self._dynamic for name in node.output)]
        self._read = [[name for name in reads(node) if name in self._dynamic] for node in self.nodes]
        inputs = tuple(value.name for value in graph.input if value.name in self._dynamic)
        self.start = Joint("", 0, inputs)

    def joints(self) -> list[Joint]:
        """Return all cuts, in order."""
        last = {value.name: len(self.nodes) for value in self._graph.output}
        for number, names in reversed([*enumerate(self._read)]):
            for name in names:
                last.setdefault(name, number)
        weighted, alive = self._weighted(), dict.fromkeys(self.start.beside)
        found = []
        for number, node in enumerate(self.nodes):
            alive.update(dict.fromkeys(name for name in node.output if name in last))
            alive = {name: None for name in alive if last.get(name, -1) > number}
            through = [name for name in alive if name in weighted]
            if len(through) == 1 and number + 1 < len(self.nodes) and last[through[0]] < len(self.nodes):
                beside = tuple(name for name in alive if name != through[0])
                found.append(Joint(through[0], number + 1, beside))
        return found

    def _weighted(self) -> set[str]:
        """Return the tensors whose values weights have a part in; sizes have none."""
        found: set[str] = set()
        for node, names in zip(self.nodes, self._read, strict=True):
            if node.op_type in ("Shape", "Size") and not node.domain:
                continue
            if any(name in found for name in names) or self._has_weight(node):
                found.update(name for name in node.output if name)
        return found

    def _has_weight(self, node: onnx.NodeProto) -> bool:
        operator = operator_of(node)
        if operator is None:
            return False
        met = operator.contractions(attributes_of(node))
        return any(c.weight < len(node.input) and node.input[c.weight] not in self._dynamic for c in met)

    def between(self, start: Joint, end: int) -> list[onnx.NodeProto]:
        """Return the nodes of a block, those that make its constants among them."""
        nodes = self.nodes[start.nodes : end]
        wanted = {name for node in nodes for name in reads(node)}
        before = []
        for node in reversed(self._static):
            if any(name in wanted for name in node.output):
                before.append(node)
                wanted.update(reads(node))
        return [*before[::-1], *nodes]

    def shared(self, start: Joint, end: int) -> set[str]:
        """Return the constants of a block that nodes outside of it read too."""
        inside = self.nodes[start.nodes : end]
        outside = [*self.nodes[: start.nodes], *self.nodes[end:]]
        return self._constants(inside) & self._constants(outside)

    def _constants(self, nodes: Sequence[onnx.NodeProto]) -> set[str]:
        found = {name for node in nodes for name in reads(node)} - self._dynamic
        for node in reversed(self._static):
            if any(name in found for name in node.output):
                found.update(reads(node))
        return found


def block_model(
    model: Model,
    nodes: Sequence[onnx.NodeProto],
    given: Mapping[str, Array],
    outputs: Collection[str],
    constants: Collection[str] = (),
    fixed: Mapping[str, Array] | None = None,
) -> Model:
    """Return a block as a model of its own, its weights inside.

    Args:
        given: what it reads of what stands before it. constants: stored tensors that it is given as inputs as well.
        fixed: what is before it and the same for all samples, such as sizes: it is stored.
    """
    graph = onnx.GraphProto(name="block")
    graph.node.extend(node for node in nodes if not any(name in constants for name in node.output))
    wanted = {name for node in graph.node for name in reads(node)}
    for tensor in model.proto.graph.initializer:
        if tensor.name in wanted and tensor.name not in constants:
            graph.initializer.append(embedded(model, tensor))
    graph.sparse_initializer.extend(t for t in model.proto.graph.sparse_initializer if t.values.name in wanted)
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in (fixed or {}).items())
    for name, array in given.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    proto = onnx.ModelProto(ir_version=model.proto.ir_version)
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.graph.CopyFrom(graph)
    return Model(proto)
