"""Steps of making a working copy: weights inside and stored as initializers, nodes with names, a higher opset.

Exporters keep weights in Constant nodes (Paddle), merge equal ones behind Identity (PyTorch), let several nodes share
one bias, and leave nodes without names; onnxruntime's quantizers know none of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import reads
from onnxprune.graph.check import one_line
from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.recognise import bodies, nodes
from onnxprune.operators.operator import named

SHARED_ELEMENTS = 1 << 12
"""Equal constants up to this size are stored once: scales and biases, not tables."""

BIASED = frozenset(named(lambda operator: operator.bias is not None))

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the ONNX operators."""
    return max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)


def raised(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model with at least this opset.

    Raises:
        ModelError: onnx.version_converter cannot raise it.
    """
    version = opset_of(proto)
    if version >= opset:
        return proto
    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises whatever it meets
        raise ModelError(
            f"opset {version} must be raised to {opset} for this mode, but onnx.version_converter fails "
            f"({one_line(error)}); export the model with a newer opset."
        ) from error
    for field in ("metadata_props", "functions"):
        converted.ClearField(field)
        getattr(converted, field).extend(getattr(proto, field))
    known = {o.domain for o in converted.opset_import}
    converted.opset_import.extend(o for o in proto.opset_import if o.domain not in known)
    return converted


def lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes that hold a float tensor into initializers of the same name."""
    kept = []
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None) if _is(node, "Constant") else None
        if tensor is None or tensor.data_type not in FLOATS or node.output[0] in outputs:
            kept.append(node)
            continue
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = node.output[0]
    if len(kept) < len(graph.node):
        _set_nodes(graph, kept)


def resolve_aliases(graph: onnx.GraphProto) -> None:
    """Let readers of an Identity of an initializer read the initializer itself."""
    stored = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    captured = captured_names(graph)
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in alias:
                node.input[index] = alias[name]
        if _is(node, "Identity") and node.input[0] in stored and node.output[0] not in outputs | captured:
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    if alias:
        _set_nodes(graph, kept)


def unshare_biases(graph: onnx.GraphProto) -> None:
    """Copy biases that several layers read: each gets the scale of its layer, and a correction of its own."""
    uses = Counter(name for node in graph.node for name in node.input)
    known = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    shared = {t.name: t for t in graph.initializer if uses[t.name] > 1 and t.data_type in FLOATS}
    seen: set[str] = set()
    for node in graph.node:
        name = node.input[2] if node.op_type in BIASED and len(node.input) > 2 else ""
        if name not in shared:
            continue
        if name not in seen and uses[name] == sum(1 for n in graph.node if name in n.input and n.op_type in BIASED):
            seen.add(name)
            continue
        node.input[2] = free_name(f"{name}.{node.output[0]}", known)
        graph.initializer.add().CopyFrom(shared[name])
        graph.initializer[-1].name = node.input[2]


def name_nodes(graph: onnx.GraphProto) -> dict[str, str]:
    """Give every node a name of its own.

    Returns:
        new name -> old name, for the nodes that were renamed.
    """
    taken = {node.name for node in graph.node if node.name}
    seen: set[str] = set()
    renamed: dict[str, str] = {}
    for node in graph.node:
        if not node.name or node.name in seen:
            first = next((output for output in node.output if output), "")
            fresh = free_name(f"{node.op_type}.{first}", taken)
            renamed[fresh] = node.name
            node.name = fresh
        seen.add(node.name)
    return renamed


def split_gemms(graph: onnx.GraphProto, wanted: Callable[[str], bool]) -> None:
    """Write Gemm with a stored matrix as MatMul and Add: the MatMul keeps the name, the Add the output."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = set(stored) | {name for node in graph.node for name in node.output}
    made: list[onnx.NodeProto] = []
    matrices: dict[tuple[str, bool, float], str] = {}
    for node in graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        splits = _is(node, "Gemm") and node.input[1] in stored and not values.get("transA") and wanted(node.name)
        if not splits:
            made.append(node)
            continue
        with_bias = len(node.input) > 2 and node.input[2] and values.get("beta", 1.0) != 0
        if with_bias and (node.input[2] not in stored and values.get("beta", 1.0) != 1):
            made.append(node)
            continue
        key = node.input[1], bool(values.get("transB")), float(values.get("alpha", 1.0))
        if key not in matrices:  # layers that share a matrix go on sharing it
            weight = to_array(stored[node.input[1]])
            weight = weight.T if values.get("transB") else weight
            matrices[key] = free_name(f"{node.input[1]}.{node.output[0]}", taken)
            add_to(graph, matrices[key], weight * np.asarray(values.get("alpha", 1.0), weight.dtype))
        matrix = matrices[key]
        product = free_name(f"{node.output[0]}.product", taken) if with_bias else node.output[0]
        made.append(onnx.helper.make_node("MatMul", [node.input[0], matrix], [product], node.name))
        if with_bias:
            bias = node.input[2]
            if values.get("beta", 1.0) != 1:
                bias = free_name(f"{bias}.{node.output[0]}", taken)
                content = to_array(stored[node.input[2]])
                add_to(graph, bias, content * np.asarray(values["beta"], content.dtype))
            made.append(onnx.helper.make_node("Add", [product, bias], [node.output[0]], f"{node.name}.bias"))
    _set_nodes(graph, made)
    remove_unused(graph)


def captured_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name that is read or handed out inside a subgraph."""
    found: set[str] = set()
    for body in bodies(graph):
        for node in nodes(body):
            found.update(node.input)
        found.update(value.name for value in body.output)
    return found


def captured_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of nodes whose outputs a subgraph reads: a quantizer could rename them."""
    captured = captured_names(graph)
    return {node.name for node in graph.node if captured & set(node.output)}


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name of a tensor in a graph and its bodies."""
    found: set[str] = set()
    for part in (graph, *all_bodies(graph)):
        found |= {value.name for value in (*part.input, *part.output, *part.initializer)}
        for node in part.node:
            found.update(node.input, node.output)
    return found


def all_bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the bodies of a graph, and those inside them first."""
    for body in bodies(graph):
        yield from all_bodies(body)
        yield body


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that it, or a body of it, reads from; otherwise the order stays."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    todo = [(index, False) for index in reversed(range(len(graph.node)))]
    while todo:
        index, ready = todo.pop()
        if ready:
            order.setdefault(index)
        elif index not in order:
            todo.append((index, True))
            before = {makers[name] for name in reads(graph.node[index]) if name in makers} - order.keys()
            todo += [(other, False) for other in sorted(before, reverse=True)]
    _set_nodes(graph, [graph.node[index] for index in order])


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove initializers that nothing reads any more."""
    used = {name for node in graph.node for name in node.input} | captured_names(graph)
    used |= {value.name for value in (*graph.output, *graph.input)}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def _is(node: onnx.NodeProto, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in ("", "ai.onnx")


def _set_nodes(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> None:
    copies = []
    for node in kept:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
