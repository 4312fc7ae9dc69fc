"""The graphs of a model, the main one and those inside its nodes, and the names that cross their borders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

_KINDS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def named_bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the bodies of a node, each with the attribute that holds it."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from ((attribute.name, graph) for graph in attribute.graphs)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of a node."""
    return (body for _, body in named_bodies(node))


def has_body(node: onnx.NodeProto) -> bool:
    """Tell whether a node holds a graph."""
    return any(attribute.type in _KINDS for attribute in node.attribute)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all its bodies."""
    yield graph
    for node in graph.node:
        for body in bodies_of(node):
            yield from graphs(body)


def reads(node: onnx.NodeProto) -> list[str]:
    """Return the tensors that a node reads, those captured by its bodies included."""
    return [*filter(None, node.input), *(name for body in bodies_of(node) for name in free_names(body))]


def free_names(graph: onnx.GraphProto) -> list[str]:
    """Return the names that a body takes from outside, in order; one that is read twice stands there twice."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {sparse.values.name for sparse in graph.sparse_initializer}
    free: list[str] = []
    for node in graph.node:
        free += [name for name in reads(node) if name not in own]
        own.update(node.output)
    return free + [value.name for value in graph.output if value.name not in own]


def read_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that the outputs of a graph are computed from."""
    wanted = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(reads(node))
    return wanted


def made_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of all tensors that a graph and its bodies hold, take or make."""
    for inner in graphs(graph):
        yield from (tensor.name for tensor in inner.initializer)
        yield from (sparse.values.name for sparse in inner.sparse_initializer)
        yield from (value.name for value in inner.input)
        for node in inner.node:
            yield from node.output


def graph_at(graph: onnx.GraphProto, path: Iterable[tuple[str, str]]) -> onnx.GraphProto:
    """Return the body that a path of (first output of a node, attribute) leads to."""
    for output, attribute in path:
        node = next(n for n in graph.node if n.output and n.output[0] == output)
        graph = next(a.g for a in node.attribute if a.name == attribute)
    return graph


def value_of(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return the tensor in a Constant node."""
    tensor: onnx.TensorProto = next(a.t for a in node.attribute if a.name == "value")
    return tensor
