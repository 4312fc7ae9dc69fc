"""Adds stored tensors to a model, or gives them other values or another type: every room does it here.

Before IR version 4 every initializer had to be an input of the graph as well, and in any version it may be one, whose
type and shape then have to agree. Tensors keep their names and stay shared; new names collide with none.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper

from onnxprune.graph.bodies import graphs
from onnxprune.graph.tensors import set_array
from onnxprune.types import Array

FREE_SINCE = 4
"""IR version since which an initializer need not be an input of its graph."""


def add(proto: onnx.ModelProto, name: str, array: Array, data_type: int | None = None) -> TensorProto:
    """Add a stored tensor to the main graph and return it.

    Args:
        name: nothing else has it, see `free_name`.
        data_type: of ONNX; None is that of the array.
    """
    tensor = add_to(proto.graph, name, array, data_type)
    if proto.ir_version < FREE_SINCE:
        _declare(proto.graph.input.add(), tensor)
    return tensor


def add_to(graph: onnx.GraphProto, name: str, array: Array, data_type: int | None = None) -> TensorProto:
    """Add a stored tensor to one graph of a model that `settle` sees later."""
    tensor: TensorProto = graph.initializer.add(name=name)
    tensor.data_type = data_type or helper.np_dtype_to_tensor_dtype(array.dtype)
    set_array(tensor, np.asarray(array, order="C"))
    return tensor


def add_external(
    proto: onnx.ModelProto, name: str, like: TensorProto, dims: tuple[int, ...], data_type: int
) -> TensorProto:
    """Add a tensor to the main graph whose content is made when the model is written (`Model.pending`).

    like: an external tensor with at least as many bytes; until then the new one has its place.
    """
    tensor: TensorProto = proto.graph.initializer.add()
    tensor.CopyFrom(like)
    tensor.name, tensor.data_type = name, data_type
    del tensor.dims[:]
    tensor.dims.extend(dims)
    if proto.ir_version < FREE_SINCE:
        _declare(proto.graph.input.add(), tensor)
    return tensor


def retype(graph: onnx.GraphProto, tensor: TensorProto, array: Array) -> None:
    """Give a stored tensor other values, of any type and shape; an input of its name follows."""
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    set_array(tensor, np.asarray(array, order="C"))
    for value in graph.input:
        if value.name == tensor.name:
            _declare(value, tensor)


def free_name(base: str, taken: set[str], mark: str = ".") -> str:
    """Return a name that is not taken, with a number behind the mark where need be, and take it."""
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}{mark}{number}"
    taken.add(name)
    return name


def settle(proto: onnx.ModelProto) -> None:
    """Let the inputs of a model agree with its stored tensors again, after a library has edited it.

    Before IR version 4 what is stored is an input as well; bodies of If have no inputs, so what is stored there asks
    for version 4, where inputs with a stored value would become optional: they stop being inputs.
    """
    graph = proto.graph
    if proto.ir_version < FREE_SINCE and any(inner.initializer for inner in graphs(graph) if inner is not graph):
        as_constants(proto)
        proto.ir_version = FREE_SINCE
    values = {value.name: value for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in values and not _agrees(values[tensor.name], tensor):
            _declare(values[tensor.name], tensor)
        elif tensor.name not in values and proto.ir_version < FREE_SINCE:
            _declare(graph.input.add(), tensor)


def as_constants(proto: onnx.ModelProto) -> None:
    """Take stored tensors out of the inputs of the graph: their values are what the model runs with."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in stored:
            del graph.input[index]


def _agrees(value: ValueInfoProto, tensor: TensorProto) -> bool:
    kind = value.type.tensor_type
    if kind.elem_type != tensor.data_type or not kind.HasField("shape") or len(kind.shape.dim) != len(tensor.dims):
        return False
    pairs = zip(kind.shape.dim, tensor.dims, strict=True)
    return all(not dim.HasField("dim_value") or dim.dim_value == size for dim, size in pairs)


def _declare(value: ValueInfoProto, tensor: TensorProto) -> None:
    value.name = tensor.name
    value.type.CopyFrom(helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)))
