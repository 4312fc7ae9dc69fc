"""The room that knows onnxruntime's quantization package: its types, its noise, and the form of model that it wants."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import onnx

from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the package prints and logs to itself, and the handlers of the root logger as they are."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def types_known() -> Iterator[None]:
    """Keep the dynamic quantizer from writing the whole model to a file and reading it back for types it has."""
    from onnxruntime.quantization import onnx_quantizer

    name = "save_and_reload_model_with_shape_infer"
    original = getattr(onnx_quantizer, name, None)
    if original is None:
        yield
        return
    setattr(onnx_quantizer, name, lambda model: model)
    try:
        yield
    finally:
        setattr(onnx_quantizer, name, original)


@contextlib.contextmanager
def only(operators: Collection[str]) -> Iterator[None]:
    """Let the quantizers know no operators but these: some change the nodes of others although they are told not to."""
    from onnxruntime.quantization import registry

    tables = [registry.QLinearOpsRegistry, registry.IntegerOpsRegistry]
    before = [dict(table) for table in tables]
    try:
        for table in tables:
            for name in {*table} - {*operators}:
                del table[name]
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)


def with_own_ranges(quantizer: Any) -> Any:
    """Return a quantizer that takes ranges as they are.

    The package gives what a Relu or Clip reads the range of what comes out, also where it is an output of the model.
    """
    return type(quantizer.__name__, (quantizer,), {"adjust_tensor_ranges": lambda self: None})


def release() -> None:
    """Give memory that is free back to the system, which the C library would keep after large sessions."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def quant_type(name: str) -> object:
    """Return the package's name of "u8" or "s8"."""
    from onnxruntime.quantization import QuantType

    return QuantType.QUInt8 if name == "u8" else QuantType.QInt8


def declare_types(proto: onnx.ModelProto) -> None:
    """Write the type of every tensor into `value_info`, and the mark that says so to the package.

    Shapes stay out: a shape that was inferred for one size would be wrong for another.
    """
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    view = View(Model(proto))
    types = trace(view).first.types
    declared = {value.name for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    for node in proto.graph.node:
        for name in node.output:
            known = types.get(name)
            if name and name not in declared and known is not None and known.HasField("tensor_type"):
                value = proto.graph.value_info.add(name=name)
                value.type.tensor_type.elem_type = known.tensor_type.elem_type
    add_infer_metadata(proto)
