"""A model whose weights are off by about as much as rounding: what it differs by is what rounding may do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array

KINDS = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}


def disturbed(model: Model, seed: int = 0) -> Model:
    """Return a copy whose float weights of two axes and more are changed in their last bit, up or down at random."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    rng = np.random.default_rng(seed)
    for tensor in proto.graph.initializer:
        if tensor.data_type not in KINDS or is_external(tensor) or len(tensor.dims) < 2:
            continue
        values = model.array(tensor)
        step = np.finfo(values.dtype).eps * rng.choice([-1.0, 1.0], values.shape)
        set_array(tensor, (values * (1.0 + step)).astype(values.dtype))
    return replace(model, proto=proto, file_bytes=None)
