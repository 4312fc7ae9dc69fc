"""The form of a model that onnxruntime's quantizers take without misreading it; every step is exact.

Its quantizers know operators by name without domain, look into no function, take Gemm for a plain product and sum, and
make names from the names of tensors without looking whether they are taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import bodies_of
from onnxprune.graph.check import one_line
from onnxprune.graph.initializers import add_to, as_constants, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.recognise import nodes
from onnxprune.types import Array

MADE_SUFFIXES = (
    "_quantized",
    "_scale",
    "_zero_point",
    "_QuantizeLinear",
    "_DequantizeLinear",
    "_QuantizeLinear_Input",
    "_QuantizeLinear_Output",
    "_DequantizeLinear_Output",
    "_output_quantized",
    "_quantized_scale",
    "_quantized_zero_point",
)
"""What the quantizers put behind the name of a tensor."""

CONTRIBUTED = frozenset({"Attention", "EmbedLayerNormalization"})
"""Operators that the quantizers mean in onnxruntime's own domain; all others they mean in ONNX's."""


def normalise(proto: onnx.ModelProto) -> None:
    """Bring an embedded model into that form, in place.

    Raises:
        ModelError: its functions cannot be written out.
    """
    _inline(proto)
    as_constants(proto)
    _densify(proto.graph)
    _free_outputs(proto.graph)
    _free_names(proto.graph)


def foreign_nodes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of nodes whose operator only has the name of one that a quantizer knows."""
    default = ("", "ai.onnx")
    return {
        node.name
        for node in graph.node
        if (node.domain != "com.microsoft" if node.op_type in CONTRIBUTED else node.domain not in default)
    }


def keep_domains(made: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Give nodes with bodies the domain back that a quantizer forgets when it copies them."""
    known = {node.output[0]: node for node in before.node if node.domain and node.output}
    for node in made.node:
        source = known.get(node.output[0]) if node.output else None
        if source is not None and source.op_type == node.op_type:
            node.domain = source.domain


def plain_gemms(graph: onnx.GraphProto, wanted: Callable[[str], bool]) -> None:
    """Write each Gemm with a stored matrix as x * W + b with a bias (outputs,), in place.

    alpha and beta go into the stored tensors; what is no vector that is stored is added behind the product.
    """
    stored = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    taken = {tensor.name for tensor in graph.initializer} | {n for node in graph.node for n in node.output}
    made: dict[tuple[str, float, int], str] = {}
    behind: dict[int, onnx.NodeProto] = {}
    for place, node in enumerate(graph.node):
        plain = node.op_type == "Gemm" and node.domain in ("", "ai.onnx") and wanted(node.name)
        if not plain or node.input[1] not in stored:
            continue
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        alpha, beta = float(values.get("alpha", 1.0)), float(values.get("beta", 1.0))
        width = stored[node.input[1]].dims[0 if values.get("transB") else 1]
        bias = node.input[2] if len(node.input) > 2 else ""
        vector = bias in stored and _is_vector(tuple(stored[bias].dims), width)
        if alpha == 1 and (not bias or (beta == 1 and vector and list(stored[bias].dims) == [width])):
            continue
        if bias and not vector and beta not in (0.0, 1.0):
            continue  # stored, of another shape, and scaled: `odd_gemms` keeps the node float

        def scaled(name: str, factor: float, shape: tuple[int, ...]) -> str:
            array = to_array(stored[name])
            array = np.broadcast_to(array.reshape(-1), shape)
            return _stored_as(graph, made, taken, name, np.asarray(array * np.float32(factor), np.float32), factor)

        if alpha != 1:
            weight = to_array(stored[node.input[1]]) * np.float32(alpha)
            node.input[1] = _stored_as(graph, made, taken, node.input[1], weight, alpha)
        if bias and beta == 0:
            del node.input[2]
        elif vector:
            node.input[2] = scaled(bias, beta, (width,))
        elif bias:
            product = free_name(f"{node.output[0]}.product", taken)
            behind[place] = helper.make_node("Add", [product, bias], [node.output[0]], f"{node.name}.bias")
            node.output[0] = product
            del node.input[2]
        kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in kept]
        del node.attribute[:]
        node.attribute.extend(copies)
    if behind:
        _put_behind(graph, behind)


def scale_biases(graph: onnx.GraphProto, wanted: Callable[[str], bool]) -> None:
    """Multiply a computed bias of a Gemm with beta in front of it, in place, so that nothing is left to scale."""
    stored = {tensor.name for tensor in graph.initializer}
    taken = stored | {name for node in graph.node for name in node.output}
    made: list[onnx.NodeProto] = []
    for node in graph.node:
        beta = next((a for a in node.attribute if a.name == "beta"), None)
        plain = node.op_type == "Gemm" and node.domain in ("", "ai.onnx") and wanted(node.name)
        scaled = plain and len(node.input) > 2 and node.input[2] and beta is not None and beta.f not in (0.0, 1.0)
        if scaled and beta is not None and node.input[1] in stored and node.input[2] not in stored:
            factor, product = free_name(f"{node.output[0]}.beta", taken), free_name(f"{node.output[0]}.scaled", taken)
            add_to(graph, factor, np.asarray(beta.f, np.float32))
            made.append(helper.make_node("Mul", [node.input[2], factor], [product], product))
            node.input[2], beta.f = product, 1.0
        made.append(onnx.NodeProto.FromString(node.SerializeToString()))
    if len(made) > len(graph.node):
        del graph.node[:]
        graph.node.extend(made)


def odd_gemms(graph: onnx.GraphProto) -> set[str]:
    """Return the names of Gemm nodes that are no plain product and sum: the quantizers would leave the factor out."""
    found = set()
    for node in graph.node:
        if node.op_type == "Gemm":
            values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if values.get("alpha", 1.0) != 1 or (values.get("beta", 1.0) != 1 and len(node.input) > 2):
                found.add(node.name)
    return found


def _is_vector(dims: tuple[int, ...], width: int) -> bool:
    """Tell whether a bias of this shape is the same for every row."""
    return len(dims) <= 2 and (len(dims) < 2 or dims[0] == 1) and (not dims or dims[-1] in (1, width))


def _stored_as(
    graph: onnx.GraphProto,
    made: dict[tuple[str, float, int], str],
    taken: set[str],
    name: str,
    array: Array,
    factor: float,
) -> str:
    """Return the name under which a scaled copy is stored; equal copies are one."""
    key = name, factor, array.ndim
    if key not in made:
        made[key] = free_name(f"{name}.scaled", taken)
        add_to(graph, made[key], array)
    return made[key]


def _put_behind(graph: onnx.GraphProto, behind: dict[int, onnx.NodeProto]) -> None:
    copies = []
    for place, node in enumerate(graph.node):
        copies.append(onnx.NodeProto.FromString(node.SerializeToString()))
        if place in behind:
            copies.append(behind[place])
    del graph.node[:]
    graph.node.extend(copies)


def _inline(proto: onnx.ModelProto) -> None:
    """Write the functions of a model out where they are called."""
    if not proto.functions:
        return
    import onnx.inliner

    try:
        made = onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # the inliner raises whatever it meets
        raise ModelError(f"the functions of the model cannot be written out ({one_line(error)}).") from error
    proto.CopyFrom(made)


def _densify(graph: onnx.GraphProto) -> None:
    """Store sparse tensors as plain ones."""
    for sparse in graph.sparse_initializer:
        values, indices = to_array(sparse.values), to_array(sparse.indices)
        array = np.zeros(tuple(sparse.dims), values.dtype)
        if indices.ndim == 1:
            array.reshape(-1)[indices] = values
        else:
            array[tuple(indices.T)] = values
        add_to(graph, sparse.values.name, array)
    del graph.sparse_initializer[:]


def _free_outputs(graph: onnx.GraphProto) -> None:
    """Let outputs that are stored tensors be copies of them, which may then change their type.

    An output that is an input is left out: nothing computes it, and `restore` puts it back.
    """
    inputs = {value.name for value in graph.input}
    for index in reversed(range(len(graph.output))):
        if graph.output[index].name in inputs:
            del graph.output[index]
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = {*stored, *(name for node in graph.node for name in (*node.input, *node.output))}
    for name in dict.fromkeys(value.name for value in graph.output):
        if name in stored:
            fresh = free_name(f"{name}.stored", taken)
            _rename(graph, name, fresh)
            stored[name].name = fresh
            graph.node.append(helper.make_node("Identity", [fresh], [name], f"{name}.output"))


def _free_names(graph: onnx.GraphProto) -> None:
    """Rename inner tensors whose names a quantizer would make from those of others; ports get a copy to work with."""
    ports = {value.name for value in (*graph.input, *graph.output)}
    every = {tensor.name for tensor in graph.initializer} | ports
    every |= {name for node in nodes(graph) for name in (*node.input, *node.output)} - {""}
    taken = set(every)
    for name in sorted(every):
        bases = [name.removesuffix(suffix) for suffix in MADE_SUFFIXES if name.endswith(suffix)]
        if not any(base in every for base in bases):
            continue
        if name not in ports:
            _rename_all(graph, name, free_name(f"{name}.", taken))
        for base in bases if name in ports else ():
            if base in every and base not in ports:
                _rename_all(graph, base, free_name(f"{base}.", taken))
            elif base in every:
                _detach(graph, base, free_name(f"{base}.", taken))


def _detach(graph: onnx.GraphProto, port: str, fresh: str) -> None:
    """Let the graph work with a copy of an input, or make an output from a tensor of another name."""
    is_input = port in {value.name for value in graph.input}
    _rename_all(graph, port, fresh)
    made = helper.make_node("Identity", [port if is_input else fresh], [fresh if is_input else port])
    made.name = f"{port}.copy"
    if is_input:
        copies = [made, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
        del graph.node[:]
        graph.node.extend(copies)
    else:
        graph.node.append(made)


def _rename_all(graph: onnx.GraphProto, old: str, new: str) -> None:
    _rename(graph, old, new)
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for value in graph.value_info:
        if value.name == old:
            value.name = new


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever nodes, those of bodies included, read or make it."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for body in bodies_of(node):
            _rename(body, old, new)
            for value in body.output:
                if value.name == old and old not in {n for inner in body.node for n in inner.output}:
                    value.name = new
