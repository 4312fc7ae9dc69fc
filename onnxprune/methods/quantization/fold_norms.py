"""Folds BatchNormalization into the convolution or Gemm before it: exact, but for rounding.

y = gamma * (W x + b - mean) / sqrt(variance + epsilon) + beta is W' x + b' with W' = f W, b' = f (b - mean) + beta,
f = gamma / sqrt(variance + epsilon). The layer takes over the output's name.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import captured_names, remove_unused
from onnxprune.operators.call import attributes_of
from onnxprune.operators.operator import operator_of
from onnxprune.types import Array


def fold_norms(graph: onnx.GraphProto) -> int:
    """Fold what can be folded and return how many there were."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    fixed = {value.name for value in graph.output} | captured_names(graph)
    taken = set(stored) | set(makers)
    folded: set[str] = set()
    for norm in graph.node:
        if norm.op_type != "BatchNormalization" or norm.domain not in ("", "ai.onnx") or len(norm.output) != 1:
            continue
        layer = makers.get(norm.input[0])
        if layer is None or uses[norm.input[0]] != 1 or norm.input[0] in fixed:
            continue
        if not _fits(layer, norm, stored) or _training(norm):
            continue
        weight, bias = _folded(layer, norm, stored)
        for index, value in ((1, weight), (2, bias)):
            name = layer.input[index] if len(layer.input) > index and layer.input[index] else f"{norm.output[0]}.bias"
            name = name if uses[name] == 1 and name in stored else free_name(f"{name}.folded", taken)
            if name in stored:
                stored[name].CopyFrom(onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
            else:
                add_to(graph, name, value)
            if len(layer.input) > index:
                layer.input[index] = name
            else:
                layer.input.append(name)
        layer.output[0] = norm.output[0]
        makers[norm.output[0]] = layer
        folded.add(norm.output[0])
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type == "BatchNormalization" and node.output[0] in folded:
            del graph.node[index]
    if folded:
        remove_unused(graph)
    return len(folded)


def _fits(layer: onnx.NodeProto, norm: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    operator = operator_of(layer)
    if operator is None or operator.bias is None or layer.input[1] not in stored:
        return False
    if len(layer.input) > 2 and layer.input[2] and layer.input[2] not in stored:
        return False
    values = {a.name: onnx.helper.get_attribute_value(a) for a in layer.attribute}
    if layer.op_type == "ConvTranspose" and values.get("group", 1) != 1:
        return False
    if values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1:
        return False
    types = {stored[name].data_type for name in (layer.input[1], *norm.input[1:]) if name in stored}
    return all(name in stored for name in norm.input[1:]) and types == {onnx.TensorProto.FLOAT}


def _training(norm: onnx.NodeProto) -> bool:
    return any(a.name == "training_mode" and a.i for a in norm.attribute)


def _folded(layer: onnx.NodeProto, norm: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (to_array(stored[name]).astype(np.float64) for name in norm.input[1:5])
    epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    weight = to_array(stored[layer.input[1]]).astype(np.float64)
    operator = operator_of(layer)
    axis = operator.contractions(attributes_of(layer))[0].writes if operator is not None else 0
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    bias = to_array(stored[layer.input[2]]).astype(np.float64) if len(layer.input) > 2 and layer.input[2] else 0.0
    return (weight * factor.reshape(shape)).astype(np.float32), ((bias - mean) * factor + beta).astype(np.float32)
