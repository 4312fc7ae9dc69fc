"""A working copy of a model that onnxruntime's quantizers understand; every tensor keeps its name and its value."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnxprune.graph.embedded import embedded
from onnxprune.graph.initializers import FREE_SINCE
from onnxprune.graph.model import Model
from onnxprune.methods.quantization.fold_weights import fold_weights
from onnxprune.methods.quantization.lift import lift_constants, name_nodes, raised, resolve_aliases
from onnxprune.methods.quantization.normal_form import normalise


@dataclass(frozen=True, eq=False)
class Prepared:
    """The working copy.

    names: name that a node has in the copy -> its own name, for nodes whose name was empty or not unique.
    """

    proto: onnx.ModelProto
    names: dict[str, str]


def prepare(model: Model, opset: int = 0) -> Prepared:
    """Return a working copy.

    Args:
        opset: least version of the ONNX operators that the quantized model needs.

    Raises:
        ModelError: the opset is lower and cannot be raised.
    """
    proto = embedded(model)
    normalise(proto)
    proto.ir_version = max(proto.ir_version, FREE_SINCE)  # the converter looks for stored tensors among inputs else
    proto = raised(proto, opset)
    lift_constants(proto.graph)
    resolve_aliases(proto.graph)
    fold_weights(proto)
    return Prepared(proto, name_nodes(proto.graph))
