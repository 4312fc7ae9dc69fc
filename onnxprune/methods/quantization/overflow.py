"""What does not fit into float16: nodes that make or read it stay float32.

float16 ends at 65504. onnxruntime's converter clips what is stored beyond that, and what is computed beyond it becomes
infinite. Values that stand for infinity (the bounds of float32, as masks of attention have them) may be clipped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import all_bodies
from onnxprune.methods.quantization.observe import each
from onnxprune.types import Array

Feeds = Mapping[str, Array]

LARGEST = 65504.0
SMALLEST = 2.0**-14
"""Of the normal numbers: below, digits are lost one by one."""
INFINITE = 3.4e38
"""From here on a number stands for infinity: float32 ends at 3.403e38."""
MARGIN = 2.0
"""Other inputs may give activations that are larger than those that were seen, by this factor."""


@dataclass(frozen=True)
class Beyond:
    """What does not fit.

    nodes: names of the nodes that make or read such a tensor.
    tensors: tensor -> its largest finite absolute value.
    """

    nodes: frozenset[str]
    tensors: Mapping[str, float]

    def told(self, total: int) -> list[str]:
        """Return what the user is told.

        Args:
            total: nodes of the model.
        """
        if not self.nodes:
            return []
        name, size = max(self.tensors.items(), key=lambda item: (abs(math.log(max(item[1], 1e-38))), item[0]))
        return [
            f"{len(self.nodes)} of {total} nodes stay float32: they hold values that float16 cannot, as '{name}' "
            f"with {size:.3g} (float16 ends at {LARGEST:.0f})"
        ]


def beyond_float16(proto: onnx.ModelProto, feeds: Sequence[Feeds], threads: int = 0) -> Beyond:
    """Return what does not fit into float16.

    Args:
        proto: prepared; nodes have names, those of bodies too.
        feeds: inputs whose activations are looked at, may be none.

    Raises:
        ModelError: it is inside a body, where the converter converts everything.
    """
    tensors = _stored(proto.graph) | _computed(proto, feeds, threads)
    for body in all_bodies(proto.graph):
        for name in (name for node in body.node for name in (*node.input, *node.output) if name in tensors):
            raise ModelError(
                f"tensor '{name}' holds {tensors[name]:.3g}, which float16 cannot (it ends at {LARGEST:.0f}), and "
                "inside the bodies of If, Loop and Scan nothing can stay float32; take --mode bf16 or dynamic."
            )
    nodes = (node for node in proto.graph.node if any(name in tensors for name in (*node.input, *node.output)))
    return Beyond(frozenset(node.name for node in nodes), tensors)


def _stored(graph: onnx.GraphProto) -> dict[str, float]:
    """Return the stored tensors, and those that an attribute holds, that do not fit."""
    found = {}
    for part in (graph, *all_bodies(graph)):
        for tensor in part.initializer:
            if tensor.data_type == TensorProto.FLOAT and (size := _odd(to_array(tensor))) is not None:
                found[tensor.name] = size
        for node in part.node:
            size = _attribute(node)
            if size is not None:
                found |= {name: size for name in node.output if name}
    return found


def _attribute(node: onnx.NodeProto) -> float | None:
    """Return the size of a tensor in an attribute that does not fit."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            return _odd(to_array(attribute.t))
    return None


def _odd(values: Array) -> float | None:
    """Return the largest finite absolute value of a stored tensor that does not fit: too large, or all too small.

    A single small number is no weight but an epsilon, which the converter raises to the least number above 0.
    """
    high = _largest(values)
    too_small = values.size > 1 and 0 < high < SMALLEST
    return high if high > LARGEST or too_small else None


def _largest(values: Array) -> float:
    """Return the largest absolute value below infinity, 0 if there is none."""
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if max(-low, high) < INFINITE:  # also told where one is NaN
        return max(-low, high)
    sizes = np.abs(values[np.isfinite(values)])
    return float(sizes[sizes < INFINITE].max(initial=0.0))


def _computed(proto: onnx.ModelProto, feeds: Sequence[Feeds], threads: int) -> dict[str, float]:
    """Return the activations, and the inputs, that come near to the end of float16."""
    graph = proto.graph
    if not feeds:
        return {}
    floats = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    made = [name for node in graph.node for name in node.output if name in floats]
    given = [value.name for value in graph.input if value.name in floats and value.name in feeds[0]]
    found: dict[str, float] = {}

    def take(name: str, array: Array) -> None:
        high = _largest(array) if array.dtype.kind == "f" else 0.0
        if high > LARGEST / MARGIN:
            found[name] = max(found.get(name, 0.0), high)

    each(proto, [*given, *made], feeds, take, threads)
    return found


def join_casts(graph: onnx.GraphProto, before: Collection[str]) -> None:
    """Let what stays float32 read what stays float32, in place: no value goes through float16 on its way.

    Args:
        before: tensors of the model before it was converted: a Cast of its own stays.
    """
    for part in (graph, *all_bodies(graph)):
        shorts = {}
        for node in part.node:
            if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT16:
                shorts[node.output[0]] = node
        for node in part.node:
            short = shorts.get(node.input[0]) if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT else None
            if short is not None and (short.output[0] not in before or node.output[0] not in before):
                node.input[0] = short.input[0]
        _unused(part, {node.output[0] for node in shorts.values()})


def _to(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "to"), 0)


def _unused(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Remove the nodes whose only output is one of these and read nowhere."""
    used = {value.name for part in (graph, *all_bodies(graph)) for value in part.output}
    used |= {name for part in (graph, *all_bodies(graph)) for node in part.node for name in node.input}
    for index in reversed(range(len(graph.node))):
        if graph.node[index].output[0] in set(names) - used:
            del graph.node[index]
