"""Put a branch of an If in the place of the If."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnxprune.graph.bodies import bodies_of, made_names


def inline_branch(graph: onnx.GraphProto, number: int, branch: str) -> None:
    """Replace node `number` of a graph, an If, by the nodes of one of its branches.

    Tensors of the branch keep their names where nothing else in the graph or its bodies has them.
    """
    node = onnx.NodeProto.FromString(graph.node[number].SerializeToString())
    body = next(a.g for a in node.attribute if a.name == branch)
    following = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node[number + 1 :]]
    del graph.node[number:]
    own = [name for inner in body.node for name in inner.output if name] + [t.name for t in body.initializer]
    taken = set(made_names(graph)) | {name for after in following for name in _made_by(after)} | set(node.output)
    names = {name: _free(name, taken | set(own)) for name in own if name in taken}
    results = [output.name for output in body.output]
    for inner, outer in zip(results, node.output, strict=True):
        if inner in own and results.count(inner) == 1 and not any(inner == t.name for t in body.initializer):
            names[inner] = outer
    rename(body, names)
    graph.node.extend(body.node)
    for output, outer in zip(body.output, node.output, strict=True):
        if output.name != outer:
            graph.node.append(onnx.helper.make_node("Identity", [output.name], [outer], name=outer))
    graph.node.extend(following)
    graph.initializer.extend(body.initializer)
    graph.sparse_initializer.extend(body.sparse_initializer)
    declared = {value.name for value in (*graph.value_info, *graph.output)}
    graph.value_info.extend(value for value in body.value_info if value.name not in declared)


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors of a graph, and what its bodies take of them."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in (*graph.value_info, *graph.output):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
        for body in bodies_of(node):
            inner = {name for n in body.node for name in n.output} | {t.name for t in body.initializer}
            inner |= {value.name for value in body.input}
            rename(body, {old: new for old, new in names.items() if old not in inner})


def _free(name: str, taken: set[str]) -> str:
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _made_by(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.output
    for body in bodies_of(node):
        yield from made_names(body)
