"""The stored tensors of a model: where they are, how large they are, what they hold, and a copy without them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto

from onnxprune.errors import ModelError
from onnxprune.types import Array

SMALL_BYTES = 1024
"""Tensors up to this size stay in a weightless copy: shape inference reads them."""

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
}
_BITS_BY_NAME = {"FLOAT8": 8, "UINT4": 4, "INT4": 4, "FLOAT4": 4, "UINT2": 2, "INT2": 2}
_PLAIN: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.INT64: np.dtype("<i8"),
    TensorProto.INT32: np.dtype("<i4"),
    TensorProto.INT8: np.dtype("i1"),
    TensorProto.UINT8: np.dtype("u1"),
}


def walk(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every stored tensor of a model: initializers, attributes, subgraphs, functions, sparse values."""
    yield from _walk_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _walk_node(node)


def _walk_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _walk_node(node)


def _walk_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        kind = attribute.type
        if kind == AttributeProto.TENSOR:
            yield attribute.t
        elif kind == AttributeProto.GRAPH:
            yield from _walk_graph(attribute.g)
        elif kind == AttributeProto.TENSORS:
            yield from attribute.tensors
        elif kind == AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                yield from _walk_graph(graph)
        elif kind == AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def is_external(tensor: TensorProto) -> bool:
    """Tell whether the content stands in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def tensor_bytes(tensor: TensorProto) -> int | None:
    """Return the bytes that shape and type ask for; None where they do not say (strings, unknown types)."""
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        name = _type_name(tensor.data_type)
        bits = next((b for prefix, b in _BITS_BY_NAME.items() if name.startswith(prefix)), None)
    if bits is None or any(dim < 0 for dim in tensor.dims):
        return None
    elements: int = math.prod(tensor.dims)
    return -(-elements * bits // 8)


def check_contents(proto: onnx.ModelProto) -> None:
    """Make sure that embedded tensors hold as many bytes as their shapes ask for, whatever the shapes say.

    Raises:
        ModelError: one does not.
    """
    for tensor in walk(proto):
        if is_external(tensor) or not tensor.HasField("raw_data"):
            continue
        needed, held = tensor_bytes(tensor), len(tensor.raw_data)
        if needed is not None and needed != held:
            raise ModelError(
                f"tensor '{tensor.name}': its content does not fit its shape ({held} bytes instead of {needed}); "
                "export the model again."
            )


def _type_name(data_type: int) -> str:
    return TensorProto.DataType.Name(data_type) if data_type in TensorProto.DataType.values() else ""


def to_array(tensor: TensorProto) -> Array:
    """Return the content of an embedded tensor, read-only; types beyond numpy's own come as `ml_dtypes`.

    Raises:
        ValueError: content and shape do not fit.
    """
    plain = _PLAIN.get(tensor.data_type)
    if plain is not None and tensor.HasField("raw_data") and sys.byteorder == "little":
        return np.frombuffer(tensor.raw_data, plain).reshape(tuple(tensor.dims))
    array = onnx.numpy_helper.to_array(tensor)
    array.flags.writeable = False
    return array


def skeleton(proto: onnx.ModelProto, *, keep_dims: bool = True) -> onnx.ModelProto:
    """Return a copy without the content of large tensors, in milliseconds whatever the size of the model.

    Args:
        keep_dims: the emptied tensors keep their shape (for shape inference); otherwise they get no elements, which
            is valid for the checker.
    """
    copy = onnx.ModelProto(ir_version=proto.ir_version, model_version=proto.model_version, domain=proto.domain)
    copy.opset_import.extend(proto.opset_import)
    copy.functions.extend(proto.functions)
    copy.metadata_props.extend(proto.metadata_props)
    copy.graph.SetInParent()
    _copy_graph(proto.graph, copy.graph, keep_dims)
    return copy


def _copy_graph(source: onnx.GraphProto, target: onnx.GraphProto, keep_dims: bool) -> None:
    target.name = source.name
    for name in ("input", "output", "value_info", "quantization_annotation", "sparse_initializer"):
        getattr(target, name).extend(getattr(source, name))
    for tensor in source.initializer:
        _copy_tensor(tensor, target.initializer.add(), keep_dims)
    for node in source.node:
        if any(
            a.type == AttributeProto.GRAPH or (a.type == AttributeProto.TENSOR and _is_large(a.t))
            for a in node.attribute
        ):
            _copy_node(node, target.node.add(), keep_dims)
        else:
            target.node.append(node)


def _copy_node(source: onnx.NodeProto, target: onnx.NodeProto, keep_dims: bool) -> None:
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.name, target.op_type, target.domain = source.name, source.op_type, source.domain
    if source.overload:
        target.overload = source.overload
    for attribute in source.attribute:
        if attribute.type not in (AttributeProto.TENSOR, AttributeProto.GRAPH):
            target.attribute.append(attribute)
            continue
        copy = target.attribute.add(name=attribute.name, type=attribute.type)
        if attribute.type == AttributeProto.TENSOR:
            _copy_tensor(attribute.t, copy.t, keep_dims)
        else:
            copy.g.SetInParent()
            _copy_graph(attribute.g, copy.g, keep_dims)


def _copy_tensor(source: TensorProto, target: TensorProto, keep_dims: bool) -> None:
    if not is_external(source) and not _is_large(source):
        target.CopyFrom(source)
        return
    target.name, target.data_type = source.name, source.data_type
    target.dims.extend(source.dims if keep_dims else [0])


def _is_large(tensor: TensorProto) -> bool:
    return (tensor_bytes(tensor) or 0) > SMALL_BYTES


def set_array(tensor: TensorProto, array: Array) -> None:
    """Give an embedded tensor other content; its name, doc string and data type stay.

    Args:
        array: of the numpy type that `to_array` gives for the tensor's data type.
    """
    made = onnx.numpy_helper.from_array(np.asarray(array, order="C")) if tensor.data_type not in _PLAIN else None
    for field_name in ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field_name)
    del tensor.dims[:]
    tensor.dims.extend(array.shape)
    tensor.raw_data = (
        made.raw_data if made is not None else np.asarray(array, _PLAIN[tensor.data_type], order="C").tobytes()
    )
