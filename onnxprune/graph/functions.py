"""A model without functions of its own: their bodies stand where they were called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import onnx
from onnx.inliner import inline_local_functions

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import bodies_of, graphs
from onnxprune.graph.model import Model

MAX_NODES = 1 << 20
"""Functions that call functions twice each double; no network has more nodes than this."""

Key = tuple[str, str, str]


def inlined(model: Model) -> Model:
    """Return the model with the bodies of its functions in the place of their calls.

    Raises:
        ModelError: a call gives more than its function takes, functions call each other in a circle, or there would be
            more nodes than any network has.
    """
    if not model.proto.functions:
        return model
    functions = {_key(f.domain, f.name, f.overload): f for f in model.proto.functions}
    sizes: dict[Key, int] = {}
    nodes = [node for graph in graphs(model.proto.graph) for node in graph.node]
    total = sum(_size(node, functions, sizes, ()) for node in nodes)
    if total > MAX_NODES:
        raise ModelError(f"its functions unfold to more than {MAX_NODES} nodes; export the model without functions.")
    try:
        return replace(model, proto=inline_local_functions(model.proto), file_bytes=None)
    except Exception as error:  # the binding raises several unrelated types
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"its functions cannot be put in place of their calls ({text}); export it without.") from error


def _key(domain: str, name: str, overload: str) -> Key:
    return "" if domain == "ai.onnx" else domain, name, overload


def _size(
    node: onnx.NodeProto, functions: dict[Key, onnx.FunctionProto], sizes: dict[Key, int], open_: tuple[Key, ...]
) -> int:
    """Nodes that a node becomes."""
    key = _key(node.domain, node.op_type, node.overload)
    function = functions.get(key)
    if function is None:
        return 1
    if key in open_:
        raise ModelError(f"the function '{node.op_type}' calls itself; no runtime can run that.")
    if len(node.input) > len(function.input) or len(node.output) > len(function.output):
        raise ModelError(
            f"a call of the function '{node.op_type}' has {len(node.input)} inputs and {len(node.output)} outputs, "
            f"it takes {len(function.input)} and gives {len(function.output)}; export the model again."
        )
    if key not in sizes:
        inner = sum(_size(n, functions, sizes, (*open_, key)) for n in _nodes(function.node))
        sizes[key] = min(inner, MAX_NODES + 1)
    return sizes[key]


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from _nodes(body.node)
