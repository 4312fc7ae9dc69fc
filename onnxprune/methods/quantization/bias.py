"""The mean error that quantization adds to the output of each layer, to be taken out of its bias.

Each layer is run a second time in one graph, quantized but on the original's inputs: so the error is its own, and
correcting one layer does not change what is measured for the next.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), equation 21.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.graph.initializers import add_to, free_name
from onnxprune.methods.quantization.observe import each
from onnxprune.operators.operator import named, operators
from onnxprune.types import Array

Feeds = Mapping[str, Array]

STATIC = named(lambda operator: operator.static)
"""Layers that run on integers."""
CHANNEL_AXES = {o.op_type: o.contractions({})[0].output_axis for o in operators() if o.static and o.bias is not None}
"""Those with a bias, and the axis of their output that it belongs to."""


def mean_errors(
    original: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Iterable[Feeds], threads: int = 0
) -> dict[str, Array]:
    """Return the mean of original minus quantized output (channels,) of each quantized layer with a bias.

    Args:
        original: prepared; its nodes have the names of those of `quantized`.
    """
    both = _Both(original, quantized)
    axes = {}
    for node in quantized.graph.node:
        if node.op_type in CHANNEL_AXES and node.name in both.floats:
            error = both.add(node)
            if error is not None:
                axes[error] = node.name, CHANNEL_AXES[node.op_type]
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}

    def take(error: str, array: Array) -> None:
        name, axis = axes[error]
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        sums[name] = sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
        counts[name] = counts.get(name, 0) + len(rows)

    if axes:
        each(both.proto, list(axes), feeds, take, threads)
    return {name: total / counts[name] for name, total in sums.items()}


def own_noise(
    original: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Iterable[Feeds], threads: int = 0
) -> dict[str, float]:
    """Return the noise that each quantized layer adds alone, as a share of the energy of what it gives."""
    both = _Both(original, quantized)
    errors = {}
    for node in quantized.graph.node:
        if node.op_type in STATIC and node.name in both.floats:
            error = both.add(node)
            if error is not None:
                errors[error] = node.name
    energy: dict[str, float] = {}

    def take(name: str, array: Array) -> None:
        flat = np.asarray(array, np.float32).ravel()
        energy[name] = energy.get(name, 0.0) + float(flat @ flat)

    if errors:
        each(both.proto, [*errors, *(both.floats[name] for name in errors.values())], feeds, take, threads)
    return {name: energy[error] / max(energy[both.floats[name]], 1e-30) for error, name in errors.items()}


def add_to_biases(proto: onnx.ModelProto, corrections: Mapping[str, Array]) -> None:
    """Add what is missing to the biases of the named layers, in place; a layer without one gets one."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    taken = set(stored) | {name for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.name not in corrections:
            continue
        correction = corrections[node.name].astype(np.float32)
        if len(node.input) > 2 and node.input[2] in stored:
            tensor = stored[node.input[2]]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + correction, tensor.name))
        elif len(node.input) == 2:
            name = free_name(f"{node.name}.bias", taken)
            add_to(proto.graph, name, correction)
            node.input.append(name)


class _Both:
    """The original graph with quantized twins of some of its layers."""

    def __init__(self, original: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(original)
        self.floats = {node.name: node.output[0] for node in original.graph.node}
        self._makers = {name: node for node in quantized.graph.node for name in node.output}
        self._stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
        self._known = {tensor.name for tensor in original.graph.initializer}
        self._known |= {name for node in original.graph.node for name in node.output}
        self._known |= {value.name for value in original.graph.input}
        self._twins: dict[str, str] = {}

    def add(self, node: onnx.NodeProto) -> str | None:
        """Add the twin of a quantized layer and return the tensor of its error; None if it is in float."""
        if not any(self._is(name, "DequantizeLinear") for name in node.input):
            return None
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        inputs = [self._twin(name) if name else "" for name in node.input]
        if any(name is None for name in inputs):
            return None
        twin.input[:] = [name or "" for name in inputs]
        twin.name, twin.output[:] = f"twin of {node.name}", [f"{node.name}.twin"]
        error = f"{node.name}.error"
        self.proto.graph.node.append(twin)
        self.proto.graph.node.append(helper.make_node("Sub", [self.floats[node.name], twin.output[0]], [error]))
        return error

    def _is(self, name: str, op_type: str) -> bool:
        return name in self._makers and self._makers[name].op_type == op_type

    def _twin(self, name: str) -> str | None:
        """Return the tensor of the common graph for an input of a quantized layer; None if there is none."""
        if name in self._twins:
            return self._twins[name]
        if name in self._stored:
            if name not in self._known:
                self.proto.graph.initializer.add().CopyFrom(self._stored[name])
                self._known.add(name)
            return name
        if not (self._is(name, "DequantizeLinear") or self._is(name, "QuantizeLinear")):
            return name if name in self._known else None
        maker = onnx.NodeProto()
        maker.CopyFrom(self._makers[name])
        inputs = [self._twin(source) for source in maker.input]
        if any(source is None for source in inputs):
            return None
        maker.input[:] = [source or "" for source in inputs]
        maker.name, maker.output[:] = f"twin of {name}", [f"{name}.twin"]
        self.proto.graph.node.append(maker)
        self._twins[name] = f"{name}.twin"
        return self._twins[name]
