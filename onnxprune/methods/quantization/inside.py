"""Weights inside the bodies of If, Loop and Scan in 8 bits: products and LSTM, activations as they come.

Ranges of what a body computes are not observed, so static mode quantizes bodies like dynamic mode does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import onnx
from onnx import TensorProto, helper

from onnxprune.graph.bodies import bodies_of
from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.integer import Integers, quantize_dynamic
from onnxprune.methods.quantization.layers import Layer
from onnxprune.methods.quantization.lift import all_bodies, all_names, lift_constants, remove_unused, split_gemms
from onnxprune.operators.operator import named, operators

QUANTIZED = {o.op_type: o.dynamic for o in operators() if o.dynamic and not o.domain}
"""Operators that are quantized inside bodies, and their inputs that must be stored."""

WITH_WEIGHTS = frozenset(named(lambda operator: operator.layout is not None))


def name_bodies(graph: onnx.GraphProto) -> dict[str, str]:
    """Give every node of a body a name that no other node has; return new name -> old name."""
    taken = {node.name for node in graph.node}
    renamed: dict[str, str] = {}
    for body in all_bodies(graph):
        for node in body.node:
            old = node.name
            first = next((output for output in node.output if output), "")
            node.name = free_name(old or f"{node.op_type}.{first}", taken)
            if node.name != old:
                renamed[node.name] = old
    return renamed


def prepare_bodies(graph: onnx.GraphProto, wanted: Callable[[str], bool]) -> None:
    """Bring the bodies of a prepared graph into the form that the quantizer wants, in place.

    Weights stand in the body that multiplies with them, and Gemm is MatMul and Add.
    """
    for node in graph.node:
        for body in bodies_of(node):
            _prepare(body, _floats(graph), wanted)
    remove_unused(graph)


def _prepare(body: onnx.GraphProto, outer: Mapping[str, TensorProto], wanted: Callable[[str], bool]) -> None:
    lift_constants(body)
    for node in body.node:
        for index in (*QUANTIZED.get(node.op_type, ()), *((1, 2) if node.op_type == "Gemm" else ())):
            name = node.input[index] if len(node.input) > index else ""
            if name in outer and name not in _floats(body):
                node.input[index] = free_name(f"{name}.{node.name}", {*all_names(body), *outer})
                add_to(body, node.input[index], to_array(outer[name]))
    split_gemms(body, wanted)
    for node in body.node:
        for inner in bodies_of(node):
            _prepare(inner, {**outer, **_floats(body)}, wanted)
    remove_unused(body)


def _floats(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def layers_inside(graph: onnx.GraphProto) -> tuple[list[Layer], list[str]]:
    """Return the layers of bodies that can be quantized, and the names of those that have weights but stay float."""
    found, left = [], []
    for body in all_bodies(graph):
        stored = {t.name for t in body.initializer if t.data_type == TensorProto.FLOAT}
        known = stored | {t.name for t in graph.initializer if len(t.dims) > 1}
        for node in body.node:
            if _can_be(node, stored):
                found.append(Layer(node.name, node.op_type, next(name for name in node.output if name)))
            elif node.op_type in WITH_WEIGHTS and known & set(node.input):
                left.append(f"'{node.name}' ({node.op_type})")
    return found, left


def told(mode: str, found: list[Layer], left: list[str]) -> list[str]:
    """Return what the user is told of the layers of bodies that stay float in a mode: those found, and others."""
    names = [*(f"'{layer.name}' ({layer.operator})" for layer in found), *left]
    if not names:
        return []
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return [f"inside the bodies of If, Loop and Scan {mode} mode leaves {shown} in float"]


def quantize_bodies(proto: onnx.ModelProto, how: Integers, left: Collection[str]) -> None:
    """Quantize the bodies of a model in place.

    Args:
        left: names of the nodes that stay float.
    """
    for body in all_bodies(proto.graph):
        stored = {t.name for t in body.initializer if t.data_type == TensorProto.FLOAT}
        chosen = [node for node in body.node if _can_be(node, stored) and node.name not in left]
        if chosen:
            _quantize(proto, body, chosen, how)


def _quantize(proto: onnx.ModelProto, body: onnx.GraphProto, chosen: list[onnx.NodeProto], how: Integers) -> None:
    """Quantize some nodes of one body as a model of its own: what it captures are inputs there."""
    before = all_names(proto.graph)
    model = onnx.ModelProto(ir_version=proto.ir_version, graph=body)
    model.opset_import.extend(proto.opset_import)
    free = {name for node in body.node for name in node.input if name} - _made_here(body)
    free -= {value.name for value in body.input}
    model.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in sorted(free))
    declared = {value.name for value in (*model.graph.value_info, *model.graph.input)}
    floats = {name for node in chosen for name in (node.input[0], *node.output) if name} - declared
    model.graph.value_info.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in sorted(floats))
    names = {node.name for node in chosen}
    others = [node.name for node in body.node if node.name not in names]
    made = quantize_dynamic(model, how, list(QUANTIZED), others)
    taken = set(before)
    new = {name: free_name(name, taken) for name in sorted(_made_here(made.graph) - _made_here(body))}
    for node in made.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for tensor in made.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for field in ("node", "initializer"):
        body.ClearField(field)
        getattr(body, field).extend(getattr(made.graph, field))
    known = {o.domain for o in proto.opset_import}
    proto.opset_import.extend(o for o in made.opset_import if o.domain not in known)


def _made_here(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in graph.node for name in node.output if name}
    return made | {tensor.name for tensor in graph.initializer}


def _can_be(node: onnx.NodeProto, stored: Collection[str]) -> bool:
    places = QUANTIZED.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return places is not None and all(len(node.input) > index and node.input[index] in stored for index in places)
