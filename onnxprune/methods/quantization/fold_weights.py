"""Computes weights that the graph makes from stored tensors alone: transposed, standardised, scaled, cast.

A quantizer sees only what is stored. Everything else of the graph stays as it is.
"""

from __future__ import annotations

import onnx
from onnx import helper

from onnxprune.graph.bodies import bodies_of
from onnxprune.graph.initializers import add_to
from onnxprune.methods.quantization.lift import captured_names, remove_unused
from onnxprune.operators.operator import operators
from onnxprune.types import Array

WEIGHTS = {"Gather": (0,), **{o.op_type: o.learned for o in operators() if o.quantized}}
"""Operator -> inputs that hold weights."""

RANDOM = frozenset(
    "RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout".split()
)


def fold_weights(proto: onnx.ModelProto) -> int:
    """Store the computed weights under their names; return how many there were."""
    graph = proto.graph
    known = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    fixed: dict[str, onnx.NodeProto] = {}
    wanted: list[str] = []
    for node in graph.node:
        if _is_fixed(node, known):
            known.update(node.output)
            fixed.update((name, node) for name in node.output if name)
        elif node.domain in ("", "ai.onnx"):
            places = [i for i in WEIGHTS.get(node.op_type, ()) if i < len(node.input)]
            wanted += [node.input[i] for i in places if node.input[i] in fixed]
    outer = {value.name for value in graph.output}
    names = [n for n in dict.fromkeys(wanted) if fixed[n].op_type != "Constant" and _alone(fixed[n], outer)]
    if not names:
        return 0
    for name, value in _computed(proto, names, fixed).items():
        add_to(graph, name, value)
    _remove_makers(graph, set(names), set(fixed))
    remove_unused(graph)
    return len(names)


def _is_fixed(node: onnx.NodeProto, known: set[str]) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in RANDOM or any(True for _ in bodies_of(node)):
        return False
    return all(name in known for name in node.input if name)


def _alone(node: onnx.NodeProto, outer: set[str]) -> bool:
    """Tell whether a node makes one tensor that is no output of the graph, so that storing it replaces the node."""
    return sum(1 for name in node.output if name) == 1 and not outer & set(node.output)


def _computed(proto: onnx.ModelProto, names: list[str], fixed: dict[str, onnx.NodeProto]) -> dict[str, Array]:
    """Run the part of the graph that makes the named tensors."""
    from onnxprune.graph.session import open_session

    open_names, needed = list(names), set(names)
    while open_names:
        maker = fixed.get(open_names.pop())
        fresh = [name for name in maker.input if name and name not in needed] if maker is not None else []
        needed.update(fresh)
        open_names += fresh
    nodes = [node for node in proto.graph.node if needed & set(node.output)]
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    outputs = [onnx.ValueInfoProto(name=name) for name in names]
    part = helper.make_model(helper.make_graph(nodes, "weights", [], outputs, tensors))
    part.ir_version = proto.ir_version
    part.ClearField("opset_import")
    part.opset_import.extend(proto.opset_import)
    return dict(zip(names, open_session(part, threads=1).values(names, {}), strict=True))


def _remove_makers(graph: onnx.GraphProto, stored: set[str], fixed: set[str]) -> None:
    """Remove the nodes whose tensors are stored now, and those that only they read."""
    used = {value.name for value in graph.output} | captured_names(graph)
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        outputs = set(node.output) - {""}
        replaced = bool(outputs & stored)
        idle = bool(outputs) and outputs <= fixed and not outputs & used
        if replaced or idle:
            del graph.node[index]
        else:
            used.update(node.input)
