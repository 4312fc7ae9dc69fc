"""Losses beside the distance to the original, as nodes of a graph: of labels, or as the user wrote them in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.types import Array

CRITERIA = ("cross-entropy", "mse", "bce", "ctc")
OWN = "onnxprune.own."
LABELS = "labels"
"""How a loss that users write calls the labels."""


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a loss: nodes that make `name`, (1,), out of tensors of the network and of labels, if it has any."""

    nodes: list[onnx.NodeProto]
    stored: list[onnx.TensorProto]
    inputs: list[onnx.ValueInfoProto]
    name: str = "onnxprune.term"
    opsets: tuple[onnx.OperatorSetIdProto, ...] = ()


def label_term(criterion: str, given: str, shape: Sequence[int], labels: str, weight: float) -> Term:
    """Return the loss of labels, averaged over all but the classes.

    cross-entropy: -sum over classes c of y[c] log softmax(x)[c], labels as shares of the classes. bce: with x before
    a Sigmoid, log(1 + exp(x)) - x y. mse: (x - y)^2.

    Args:
        given: what the network gives, before a last Softmax or Sigmoid. shape: of it, classes along axis 1 (or the last
            of two).
        labels: name of the input with the labels, of that shape.
    """
    node, part = helper.make_node, "onnxprune.label."
    count = int(np.prod(shape)) // (shape[1] if criterion == "cross-entropy" else 1)
    sign = -1.0 if criterion == "cross-entropy" else 1.0
    if criterion == "cross-entropy":
        made = [
            node("LogSoftmax", [given], [f"{part}log"], axis=1),
            node("Mul", [f"{part}log", labels], [f"{part}each"]),
        ]
    elif criterion == "bce":
        # log(1 + exp(x)) = relu(x) + log(1 + exp(-|x|))
        made = [
            node("Relu", [given], [f"{part}above"]),
            node("Abs", [given], [f"{part}size"]),
            node("Neg", [f"{part}size"], [f"{part}negative"]),
            node("Exp", [f"{part}negative"], [f"{part}small"]),
            node("Add", [f"{part}small", f"{part}one"], [f"{part}more"]),
            node("Log", [f"{part}more"], [f"{part}rest"]),
            node("Add", [f"{part}above", f"{part}rest"], [f"{part}soft"]),
            node("Mul", [given, labels], [f"{part}right"]),
            node("Sub", [f"{part}soft", f"{part}right"], [f"{part}each"]),
        ]
    else:
        made = [
            node("Sub", [given, labels], [f"{part}difference"]),
            node("Mul", [f"{part}difference"] * 2, [f"{part}each"]),
        ]
    stored: dict[str, Array] = {
        f"{part}one": np.array(1, np.float32),
        f"{part}flat": np.array([-1], np.int64),
        f"{part}factor": np.array(sign * weight / count, np.float32),
    }
    made += [
        node("Reshape", [f"{part}each", f"{part}flat"], [f"{part}row"]),
        node("ReduceSum", [f"{part}row"], [f"{part}sum"], keepdims=1),
        node("Mul", [f"{part}sum", f"{part}factor"], [f"{part}term"]),
    ]
    value = helper.make_tensor_value_info(labels, onnx.TensorProto.FLOAT, list(shape))
    return Term(made, [numpy_helper.from_array(a, n) for n, a in stored.items()], [value], f"{part}term")


def own_term(loss: onnx.ModelProto, outputs: Sequence[str], labels: Array | None, feed_name: str, opset: int) -> Term:
    """Return the loss that a user wrote as a graph: its inputs are outputs of the network by name, and `labels`.

    Args:
        labels: those of one run; None: there are none. feed_name: the input that will hold them.

    Raises:
        UsageError: it reads something else, or does not give one number.
    """
    graph = loss.graph
    if loss.functions or any(item.domain not in ("", "ai.onnx") for item in loss.opset_import):
        raise UsageError("the loss graph has operators outside of ONNX's own; write it with those of ONNX.")
    stored = {tensor.name for tensor in graph.initializer}
    reads = [value for value in graph.input if value.name not in stored]
    known = [*outputs, *([LABELS] if labels is not None else [])]
    for value in reads:
        if value.name not in known:
            raise UsageError(f"the loss graph reads '{value.name}'; it can read {', '.join(map(repr, known))}.")
    dims = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] if len(graph.output) == 1 else [0]
    if any(size != 1 for size in dims):
        raise UsageError("the loss graph must give one output, a single number (a scalar or one value).")
    version = next((item.version for item in loss.opset_import if item.domain in ("", "ai.onnx")), opset)
    if version < opset:
        try:
            graph = onnx.version_converter.convert_version(loss, opset).graph
        except Exception as error:
            raise UsageError(f"the loss graph cannot be raised to opset {opset}: {str(error)[:200]}") from error
    elif version > opset:
        raise UsageError(f"the loss graph is of opset {version}; write it in opset {opset} or below.")
    names = {value.name: value.name for value in reads}
    if labels is not None:
        names[LABELS] = feed_name

    def renamed(name: str) -> str:
        return names.get(name, f"{OWN}{name}") if name else name

    nodes = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        for field in (copy.input, copy.output):
            field[:] = [renamed(name) for name in field]
        nodes.append(copy)
    tensors = []
    for tensor in graph.initializer:
        other = onnx.TensorProto()
        other.CopyFrom(tensor)
        other.name = renamed(tensor.name)
        tensors.append(other)
    tensors.append(numpy_helper.from_array(np.array([1], np.int64), f"{OWN}.one"))
    nodes.append(helper.make_node("Reshape", [renamed(graph.output[0].name), f"{OWN}.one"], [f"{OWN}.term"]))
    values = []
    if labels is not None and any(value.name == LABELS for value in reads):
        kind = helper.np_dtype_to_tensor_dtype(labels.dtype)
        values = [helper.make_tensor_value_info(feed_name, kind, labels.shape)]
    return Term(nodes, tensors, values, f"{OWN}.term")
