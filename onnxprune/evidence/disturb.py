"""A model whose weights are off: by as much as rounding, to see what that may do, or more, to see who looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, set_array, walk
from onnxprune.types import Array

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})
LOW = frozenset({TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
"""Weights of few bits: their last bit is no rounding, so they move only by a share."""


def disturbed(model: Model, size: float | None = None, seed: int = 0) -> Model:
    """Return a copy whose weights of two axes and more are changed, up or down at random.

    Args:
        size: share of each float weight, and of the range of integers; None is the last bit of floats.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    rng = np.random.default_rng(seed)
    kinds = FLOATS if size is None else FLOATS | LOW
    for tensor in walk(proto):
        if tensor.data_type in kinds and not is_external(tensor) and len(tensor.dims) > 1:
            set_array(tensor, _moved(model.array(tensor), size, rng))
    return replace(model, proto=proto, file_bytes=None)


def _moved(values: Array, size: float | None, rng: np.random.Generator) -> Array:
    signs = rng.choice([-1.0, 1.0], values.shape)
    if values.dtype.kind == "f":
        step = np.finfo(values.dtype).eps if size is None else size
        return np.asarray((values * (1.0 + step * signs)).astype(values.dtype))
    plain = values.astype(np.float32)  # bfloat16 and 4 bits are types of ml_dtypes
    if "float" in values.dtype.name:
        return np.asarray((plain * (1.0 + (size or 0.0) * signs)).astype(values.dtype))
    low, high = plain.min(initial=0.0), plain.max(initial=0.0)
    moved = np.clip(np.round(plain + (size or 0.0) * (high - low) * signs), low, high)
    return np.asarray(moved.astype(np.int8 if low < 0 else np.uint8).astype(values.dtype))
