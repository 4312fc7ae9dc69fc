"""Half precision: the whole graph in float16, or the weights in bfloat16.

float16 by onnxruntime's converter, which knows what must stay float. bfloat16 halves the file: the CPU has no kernels
for it, so the weights are stored in bfloat16 and cast to float32 when the model is loaded; activations stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto

from onnxprune.errors import ModelError
from onnxprune.graph.initializers import free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import all_names
from onnxprune.methods.quantization.native import quiet
from onnxprune.methods.quantization.overflow import join_casts
from onnxprune.methods.quantization.turned import product_first

SMALL_ELEMENTS = 64
"""Tensors below this size stay float32: they would not make the file smaller."""


def to_float16(
    proto: onnx.ModelProto, keep_io_types: bool, operators: Collection[str], left: Collection[str]
) -> onnx.ModelProto:
    """Return the model in float16.

    Args:
        proto: prepared, with types; it is changed.
        keep_io_types: inputs and outputs stay float32.
        operators: stay float32, besides those that onnxruntime has no float16 kernels for.
        left: names of the nodes that stay float32.

    Raises:
        ModelError: onnxruntime's converter fails.
    """
    product_first(proto.graph, left)
    before = all_names(proto.graph)
    with quiet():
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers import float16

        try:
            result = float16.convert_float_to_float16(
                proto,
                keep_io_types=keep_io_types,
                disable_shape_infer=True,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *operators],
                node_block_list=list(left),
            )
            join_casts(result.graph, before)
            model = ONNXModel(result)
            model.topological_sort()
        except Exception as error:  # the package raises whatever it meets
            raise ModelError(
                f"onnxruntime's float16 converter fails ({type(error).__name__}: {error}); keep what it names float32 "
                "with --op-block-list or --skip."
            ) from error
    converted: onnx.ModelProto = model.model
    return converted


def to_bfloat16(proto: onnx.ModelProto, operators: Collection[str], left: Collection[str]) -> int:
    """Store the float32 weights of a model in bfloat16, each behind a Cast of its name.

    Args:
        proto: prepared, at opset 13 or later; it is changed.
        operators, left: operators and nodes whose weights stay float32.

    Returns:
        how many weights there were.

    Raises:
        ModelError: a weight does not fit into bfloat16.
    """
    import ml_dtypes

    graph = proto.graph
    kept = {n for node in graph.node if node.op_type in operators or node.name in left for n in node.input}
    kept |= {value.name for value in graph.input}
    taken = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    casts: list[onnx.NodeProto] = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < SMALL_ELEMENTS or tensor.name in kept:
            continue
        values = to_array(tensor)
        with np.errstate(over="ignore"):
            short = values.astype(ml_dtypes.bfloat16)
        if not np.isfinite(short.astype(np.float32)).all() and np.isfinite(values).all():
            raise ModelError(f"tensor '{tensor.name}' has values beyond the range of bfloat16; keep it with --skip.")
        name, stored = tensor.name, free_name(f"{tensor.name}.bfloat16", taken)
        tensor.CopyFrom(onnx.numpy_helper.from_array(short, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], free_name(f"{name}.cast", taken), to=1))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return len(casts)
