"""What zeros are worth on disk: sparse tensors, and the size of the file after compression."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError, OnnxpruneError
from onnxprune.graph.external import external_tensors
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external, to_array
from onnxprune.graph.view import View

INDEX_BYTES = 8
SMALLEST = 1024
LARGEST_COMPRESSED = 1 << 30
"""Models above this size are not compressed to learn their size: it takes too long."""


def stored_sparse(model: Model) -> tuple[Model, str]:
    """Return the model with `sparse_initializer` where that is smaller, after onnxruntime has opened it; and a note.

    Raises:
        ModelError: no tensor gains, or onnxruntime does not take the result.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    ports = {value.name for value in (*graph.input, *graph.output)}
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        sparse = None if is_external(tensor) or tensor.name in ports else _sparse(tensor)
        if sparse is None:
            kept.append(TensorProto.FromString(tensor.SerializeToString()))
        else:
            graph.sparse_initializer.append(sparse)
    count = len(graph.sparse_initializer) - len(model.proto.graph.sparse_initializer)
    if not count:
        raise ModelError(
            "--storage sparse: no tensor gets smaller as a sparse one, which takes 8 bytes of index for each weight; "
            "that pays above 67 % zeros (float32). Leave it out and compress the file instead."
        )
    del graph.initializer[:]
    graph.initializer.extend(kept)
    result = Model(proto, model.path, model.pending)
    _require_runnable(result)
    return result, f"{count} tensors are stored sparse; onnxruntime makes them dense when it loads the model"


def compressed_bytes(model: Model) -> int | None:
    """Return what zlib (the method of .zip files) makes of the model and its external data; None for large models."""
    if model.size_bytes > LARGEST_COMPRESSED:
        return None
    packer, total = zlib.compressobj(6), 0
    for part in _parts(model):
        total += len(packer.compress(part))
    return total + len(packer.flush())


def _parts(model: Model) -> Iterator[bytes]:
    yield model.proto.SerializeToString(deterministic=True)
    if not external_tensors(model.proto):
        return
    for key, parameter in View(model).parameters.items():
        if is_external(parameter.tensor):
            yield model.content(key, parameter.tensor).tobytes()


def _sparse(tensor: TensorProto) -> onnx.SparseTensorProto | None:
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE) or not tensor.dims:
        return None
    flat = to_array(tensor).reshape(-1)
    places = np.flatnonzero(flat)
    if flat.nbytes < SMALLEST or len(places) == 0 or len(places) * (INDEX_BYTES + flat.itemsize) >= flat.nbytes:
        return None
    values = onnx.numpy_helper.from_array(np.ascontiguousarray(flat[places]), tensor.name)
    indices = onnx.numpy_helper.from_array(places.astype(np.int64), f"{tensor.name}.indices")
    return onnx.helper.make_sparse_tensor(values, indices, list(tensor.dims))


def _require_runnable(model: Model) -> None:
    from onnxprune.graph.session import open_session

    try:
        open_session(model, threads=1, label="the model with sparse tensors")
    except OnnxpruneError as error:
        raise ModelError(f"--storage sparse: onnxruntime does not take the result, leave it out ({error}).") from error
