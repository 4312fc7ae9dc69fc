"""The part of a network behind some of its weights: what stands before it is computed once, and kept.

New weights are inputs of the part; all others stay constants, so that onnxruntime prepares them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.compensate.stages import embedded, static_names
from onnxprune.graph.bodies import reads
from onnxprune.graph.model import Model
from onnxprune.graph.session import Session, open_session
from onnxprune.types import Array


@dataclass(frozen=True)
class Tail:
    """Nodes that depend on some weights.

    entries: tensors computed before it that it reads, inputs of the graph included.
    outputs: those of the graph that it gives.
    """

    weights: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    entries: tuple[str, ...]
    outputs: tuple[str, ...]


def tail_of(graph: onnx.GraphProto, weights: Iterable[str], outputs: Sequence[str], *, whole: bool = False) -> Tail:
    """Return the part behind the weights that some outputs need.

    Args:
        whole: take all that depends on an input of the graph, so that nothing else has to be kept.
    """
    weights, static = tuple(weights), static_names(graph)
    inputs = {value.name for value in graph.input} - static if whole else set()
    changed = {*weights, *inputs}
    behind = []
    for node in graph.node:
        if any(name in changed for name in reads(node)):
            changed.update(name for name in node.output if name)
            behind.append(node)
    given = [name for name in outputs if name in changed]
    needed, nodes = set(given), []
    for node in reversed(behind):
        if any(name in needed for name in node.output if name):
            needed.update(reads(node))
            nodes.append(node)
    read = dict.fromkeys(name for node in reversed(nodes) for name in reads(node))
    entries = [name for name in read if name in inputs or (name not in changed and name not in static)]
    return Tail(tuple(sorted(set(weights))), tuple(reversed(nodes)), tuple(entries), tuple(given))


def open_tail(
    model: Model,
    tail: Tail,
    entries: dict[str, Array],
    weights: dict[str, Array],
    *,
    threads: int | None,
    provider: str | None,
) -> Session:
    """Return a session of the part.

    Args:
        entries: one value of each, for their types. weights: likewise.
    """
    whole, graph = model.proto.graph, onnx.GraphProto(name="tail")
    wanted = {name for node in tail.nodes for name in reads(node)}
    static, still = [], static_names(whole)
    for node in reversed(whole.node):
        made = [name for name in node.output if name]
        if any(name in wanted and name not in weights for name in made) and all(name in still for name in made):
            static.append(node)
            wanted.update(reads(node))
    graph.node.extend([*reversed(static), *tail.nodes])
    kept = wanted - weights.keys()
    graph.initializer.extend(embedded(model, tensor) for tensor in whole.initializer if tensor.name in kept)
    graph.sparse_initializer.extend(s for s in whole.sparse_initializer if s.values.name in kept)
    for name, array in (entries | weights).items():
        element = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, element, None))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in tail.outputs)
    proto = onnx.ModelProto(ir_version=max(model.proto.ir_version, INITIALIZERS_ALONE))
    proto.opset_import.extend(model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.graph.CopyFrom(graph)
    return open_session(proto, threads=threads, provider=provider, folder=model.folder)


INITIALIZERS_ALONE = 4
"""IR version from which an initializer need not be an input."""
