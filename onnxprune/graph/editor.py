"""A copy of a model that can be edited in place, with its nodes matched to those of the original's view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from onnxprune.graph import initializers
from onnxprune.graph.bodies import bodies_of, graphs
from onnxprune.graph.model import Model
from onnxprune.graph.view import Node, View
from onnxprune.types import Array


class Editor:
    """Edits a copy; nothing moves but what is put in. Nodes that come and go do so in `finish`.

    Attributes:
        view: the flat reading of the copy.
    """

    def __init__(self, source: View) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(source.model.proto)
        self.view = View(Model(proto, source.model.path), source.loops)
        self._twins = {id(a): b for a, b in zip(source.nodes, self.view.nodes, strict=True)}
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._after: dict[int, list[onnx.NodeProto]] = {}
        self._instead: dict[int, onnx.NodeProto | None] = {}

    @property
    def proto(self) -> onnx.ModelProto:
        """The edited copy."""
        return self.view.model.proto

    def twin(self, node: Node) -> Node:
        """Return the copy's node for a node of the original's view."""
        return self._twins[id(node)]

    def node_proto(self, node: Node) -> onnx.NodeProto:
        """Return the copy's proto for a node of the original's view."""
        return self.twin(node).proto

    def new_name(self, base: str) -> str:
        """Return a tensor name that the model does not use yet."""
        return initializers.free_name(base, self.view.keys, "_")

    def add_initializer(self, base: str, value: Array, data_type: int | None = None) -> str:
        """Add a constant to the main graph, which every subgraph sees.

        Returns:
            its name, made from `base`.
        """
        return str(initializers.add(self.proto, self.new_name(base), value, data_type).name)

    def put_before(self, node: Node, made: onnx.NodeProto) -> None:
        """Insert a node before the copy of a node, after what was inserted there already."""
        self._before.setdefault(id(self.twin(node)), []).append(made)

    def put_after(self, node: Node, made: Sequence[onnx.NodeProto]) -> None:
        """Insert nodes after the copy of a node."""
        self._after.setdefault(id(self.twin(node)), []).extend(made)

    def replace(self, nodes: Sequence[Node], made: onnx.NodeProto) -> None:
        """Put one node in the place of the last of several nodes of one graph."""
        for node in nodes:
            self._instead[id(self.twin(node))] = None
        self._instead[id(self.twin(nodes[-1]))] = made
        graph = self.twin(nodes[-1]).graph
        gone = {name for node in nodes[:-1] for name in self.node_proto(node).output}
        for value in [v for v in graph.value_info if v.name in gone]:
            graph.value_info.remove(value)

    def drop_unread(self, nodes: Iterable[Node]) -> None:
        """Take nodes out that nothing reads any more: arithmetic on sizes that do not fit would fail when run."""
        for node in reversed(list(nodes)):
            proto = self.node_proto(node)
            if not any(name and self._is_read(name) for name in proto.output):
                self._instead[id(self.twin(node))] = None

    def _is_read(self, name: str) -> bool:
        gone = {twin for twin, made in self._instead.items() if made is None}
        protos = [twin.proto for twin in self._twins.values() if id(twin) not in gone]
        protos += [made for made in self._instead.values() if made is not None]
        protos += [made for table in (self._before, self._after) for added in table.values() for made in added]
        ends = [value.name for graph in graphs(self.proto.graph) for value in graph.output]
        captured = [key for twin in self._twins.values() for key in twin.captured]
        return name in ends or name in captured or any(name in proto.input for proto in protos)

    def finish(self) -> onnx.ModelProto:
        """Let the nodes come and go, and return the copy; node protos must not be edited after that."""
        touched = self._before.keys() | self._after.keys() | self._instead.keys()
        graphs = {id(twin.graph): twin.graph for twin in self._twins.values() if id(twin) in touched}
        # a graph that is written again has new copies of its bodies, so the innermost come first
        depths = _depths(self.proto.graph)
        for graph in sorted(graphs.values(), key=lambda graph: -depths[id(graph)]):
            twins = {tuple(t.proto.output): id(t) for t in self._twins.values() if t.graph is graph}
            nodes: list[onnx.NodeProto] = []
            for proto in graph.node:
                twin = twins.get(tuple(proto.output), 0)
                kept = self._instead.get(twin, proto)
                nodes += [*self._before.get(twin, ()), *([kept] if kept else []), *self._after.get(twin, ())]
            copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
        return self.proto


def _depths(graph: onnx.GraphProto, depth: int = 0) -> dict[int, int]:
    """Return how many nodes stand around each graph, by its identity."""
    found = {id(graph): depth}
    for node in graph.node:
        for body in bodies_of(node):
            found |= _depths(body, depth + 1)
    return found
