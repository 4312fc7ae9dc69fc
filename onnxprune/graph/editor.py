"""A copy of a model that can be edited in place, with its nodes matched to those of the original's view."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnxprune.graph.model import Model
from onnxprune.graph.tensors import set_array
from onnxprune.graph.view import Node, View
from onnxprune.types import Array


class Editor:
    """Edits a copy; nothing moves but what is put in.

    Attributes:
        view: the flat reading of the copy.
    """

    def __init__(self, source: View) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(source.model.proto)
        self.view = View(Model(proto, source.model.path))
        self._twins = {id(a): b for a, b in zip(source.nodes, self.view.nodes, strict=True)}
        self._protos: dict[int, onnx.NodeProto] = {id(n): n.proto for n in self.view.nodes}

    @property
    def proto(self) -> onnx.ModelProto:
        """The edited copy."""
        return self.view.model.proto

    def twin(self, node: Node) -> Node:
        """Return the copy's node for a node of the original's view."""
        return self._twins[id(node)]

    def node_proto(self, node: Node) -> onnx.NodeProto:
        """Return the copy's proto for a node of the original's view."""
        return self._protos[id(self._twins[id(node)])]

    def new_name(self, base: str) -> str:
        """Return a tensor name that the model does not use yet."""
        taken = self.view.keys
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        return name

    def add_initializer(self, base: str, value: Array, data_type: int | None = None) -> str:
        """Add a constant to the main graph, which every subgraph sees.

        Returns:
            its name, made from `base`.
        """
        tensor = self.proto.graph.initializer.add()
        tensor.name = self.new_name(base)
        tensor.data_type = data_type or onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        set_array(tensor, value)
        return str(tensor.name)

    def put_before(self, node: Node, made: list[onnx.NodeProto]) -> None:
        """Insert nodes before the copy of a node."""
        self._insert(node, made, 0)

    def put_after(self, node: Node, made: list[onnx.NodeProto]) -> None:
        """Insert nodes after the copy of a node."""
        self._insert(node, made, 1)

    def replace(self, nodes: Sequence[Node], made: onnx.NodeProto) -> None:
        """Put one node in the place of the last of several nodes of one graph."""
        graph = self.twin(nodes[-1]).graph
        gone = [self.node_proto(node).output[0] for node in nodes]
        self.put_before(nodes[-1], [made])
        for output in gone:
            places = [i for i, proto in enumerate(graph.node) if output in proto.output]
            del graph.node[places[-1]]
        for value in [v for v in graph.value_info if v.name in gone[:-1]]:
            graph.value_info.remove(value)
        for node in nodes:
            del self._protos[id(self._twins.pop(id(node)))]
        self._relink(graph)

    def _insert(self, node: Node, made: list[onnx.NodeProto], offset: int) -> None:
        graph = self.twin(node).graph
        output = self.node_proto(node).output[0]
        place = next(i for i, proto in enumerate(graph.node) if output in proto.output) + offset
        for number, proto in enumerate(made):
            graph.node.insert(place + number, proto)
        self._relink(graph)

    def _relink(self, graph: onnx.GraphProto) -> None:
        """Inserting moves the protos of a graph in memory: look them up again by their first output."""
        by_output = {o: proto for proto in graph.node for o in proto.output if o}
        for twin in self._twins.values():
            if twin.graph is graph:
                first = next(o for o in self._protos[id(twin)].output if o)
                self._protos[id(twin)] = by_output[first]
