"""Models whose weights are all inside: what stands in files beside them, and what is still to be made."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, walk
from onnxprune.graph.view import View


def embedded(model: Model) -> onnx.ModelProto:
    """Return a copy of the proto with the content of external tensors inside."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if not any(is_external(tensor) for tensor in walk(model.proto)):
        return proto
    parameters = View(model).parameters if model.pending else {}  # held: ids of tensors last as long as their objects
    keys = {id(parameter.tensor): key for key, parameter in parameters.items()}
    for old, new in zip(walk(model.proto), walk(proto), strict=True):
        if is_external(old):
            content = model.content(keys.get(id(old), ""), old)
            new.CopyFrom(numpy_helper.from_array(np.asarray(content, order="C"), old.name))
    return proto
