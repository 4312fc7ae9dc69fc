"""A model whose weights are off: by as much as rounding, to see what that may do, or more, to see who looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array, walk

KINDS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})


def disturbed(model: Model, size: float | None = None, seed: int = 0) -> Model:
    """Return a copy whose float weights of two axes and more are changed, up or down at random.

    Args:
        size: share of each weight; None is its last bit.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    rng = np.random.default_rng(seed)
    for tensor in walk(proto):
        if tensor.data_type not in KINDS or is_external(tensor) or len(tensor.dims) < 2:
            continue
        values = model.array(tensor)
        step = (size or np.finfo(values.dtype).eps) * rng.choice([-1.0, 1.0], values.shape)
        set_array(tensor, (values * (1.0 + step)).astype(values.dtype))
    return replace(model, proto=proto, file_bytes=None)
