"""Whether a model is valid: the ONNX checker and strict shape inference, on weightless copies."""

from __future__ import annotations

import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import graphs
from onnxprune.graph.repair import OLDEST_OPSET, lenient
from onnxprune.graph.tensors import skeleton, walk

OLDEST_IR = 3
LISTED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def check_versions(proto: onnx.ModelProto) -> None:
    """Refuse versions that the installed onnx does not know or that are too old.

    Raises:
        ModelError: with the version that was found and what to do.
    """
    if proto.ir_version < OLDEST_IR:
        raise ModelError(f"IR version {proto.ir_version} is older than {OLDEST_IR}; export the model again.")
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"IR version {proto.ir_version} is newer than the installed onnx knows ({onnx.IR_VERSION}); upgrade onnx."
        )
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            continue
        if opset.version > newest:
            raise ModelError(f"opset {opset.version} is newer than the installed onnx knows ({newest}); upgrade onnx.")
        if opset.version < OLDEST_OPSET:
            raise ModelError(
                f"opset {opset.version} is older than {OLDEST_OPSET}; raise it with onnx.version_converter first."
            )


def check_tensors(proto: onnx.ModelProto) -> None:
    """Refuse stored tensors of types that do not exist, of sizes below 0, with values twice; names that are no text.

    Raises:
        ModelError: naming the tensor.
    """
    for tensor in walk(proto):
        if tensor.data_type not in TYPES:
            raise ModelError(f"tensor '{tensor.name}' has the type {tensor.data_type}, which ONNX does not have.")
        if any(dim < 0 for dim in tensor.dims):
            raise ModelError(f"tensor '{tensor.name}' has the shape {list(tensor.dims)}; sizes are not negative.")
        if tensor.HasField("raw_data") + sum(len(getattr(tensor, field)) > 0 for field in LISTED) > 1:
            raise ModelError(f"tensor '{tensor.name}' holds its values twice, in two fields; export the model again.")
    for graph in graphs(proto.graph):
        named = (*graph.initializer, *graph.input, *graph.output, *graph.value_info, *graph.node)
        names = [item.name for item in named]
        names += [name for node in graph.node for name in (*node.input, *node.output, node.op_type, node.domain)]
        refers = next((n for n in graph.node if any(a.ref_attr_name for a in n.attribute)), None)
        if refers is not None:
            raise ModelError(
                f"{refers.op_type} '{refers.name}': an attribute of it is that of a function, but it stands in none; "
                "export the model again."
            )
        if any(isinstance(name, bytes) for name in names):
            broken = next(name for name in names if isinstance(name, bytes))
            raise ModelError(f"the name {broken!r} is not UTF-8 text; export the model again.")


def check_groups(proto: onnx.ModelProto) -> None:
    """Refuse convolutions whose groups do not divide their channels: no runtime runs them, yet inference accepts them.

    Raises:
        ModelError: naming the node.
    """
    for graph in graphs(proto.graph):
        dims = {tensor.name: tensor.dims for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type not in ("Conv", "ConvTranspose") or node.domain not in ("", "ai.onnx"):
                continue
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            shape = dims.get(node.input[1], ()) if len(node.input) > 1 else ()
            if groups < 1 or (shape and shape[0] % groups):
                channels = f" of {shape[0]} channels" if shape else ""
                raise ModelError(f"{node.op_type} '{node.name}': {groups} groups{channels}; export the model again.")


def check_structure(proto: onnx.ModelProto) -> None:
    """Run the ONNX checker. Whether content and shape of a tensor fit shows when the tensor is read.

    Raises:
        ModelError: the first thing that is wrong, in one line.
    """
    try:
        onnx.checker.check_model(lenient(proto))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"the model is not valid ONNX: {one_line(error)}") from error


def shape_problem(proto: onnx.ModelProto) -> str | None:
    """Return what strict shape inference complains about, or None."""
    try:
        onnx.shape_inference.infer_shapes(_dense(skeleton(proto)), check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return one_line(error)
    return None


def _dense(copy: onnx.ModelProto) -> onnx.ModelProto:
    """Declare sparse initializers of a copy as inputs: shape inference gives them no shape."""
    for graph in graphs(copy.graph):
        for sparse in graph.sparse_initializer:
            values = sparse.values
            copy.graph.input.append(onnx.helper.make_tensor_value_info(values.name, values.data_type, sparse.dims))
        del graph.sparse_initializer[:]
    return copy


def one_line(error: BaseException) -> str:
    """Return the first meaningful line of an error of a library."""
    text = " ".join(str(error).split("\n\n==> Context")[0].split())
    return text if len(text) <= 400 else text[:397] + "..."
