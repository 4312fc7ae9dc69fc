"""Weights of matrix products in blocks of 4 or 8 bits (MatMulNBits of onnxruntime); activations stay float.

The package's own quantizer of this format needs onnx-ir and rounds to nearest in the full range of each block; here
the range of each block is the one that gives the least squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import remove_unused
from onnxprune.types import Array

ACCURACY_LEVEL = 4
"""onnxruntime multiplies in 8 bits: as fast as it gets on a CPU, and finer than the weights are."""

SHRINKS = tuple(1 - 0.04 * step for step in range(1, 8))
"""Shares of a block's range that are tried: outliers are clipped where that pays."""


Round = Callable[[str, Array], tuple[Array, Array, Array]]
"""Rounds the matrix of the node of this name: see `round_blocks`."""


def quantize_weights(
    proto: onnx.ModelProto, bits: int, block_size: int, left: Collection[str], round_matrix: Round
) -> onnx.ModelProto:
    """Return the model with MatMulNBits for the products with a stored matrix.

    Args:
        proto: prepared, Gemm split; it is changed.
        left: names of the nodes that stay float.
        round_matrix: see `round_blocks` and `rounding.round_with_gram`.
    """
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = set(stored) | {name for node in graph.node for name in node.output}
    made: dict[str, list[str]] = {}
    for node in graph.node:
        if not is_product(node, stored) or node.name in left:
            continue
        source = node.input[1]
        matrix = to_array(stored[source])
        if source not in made:
            codes, scales, zeros = round_matrix(node.name, matrix.astype(np.float32))
            names = [free_name(f"{source}.{part}", taken) for part in (f"int{bits}", "scales", "zeros")]
            parts = (pack(codes, bits), scales.astype(matrix.dtype), pack(zeros, bits))
            for name, array in zip(names, parts, strict=True):
                add_to(graph, name, array)
            made[source] = names
        rows, columns = matrix.shape
        fields = {"K": rows, "N": columns, "bits": bits, "block_size": block_size, "accuracy_level": ACCURACY_LEVEL}
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits", [node.input[0], *made[source]], node.output, node.name, domain="com.microsoft", **fields
            )
        )
    if made and not any(o.domain == "com.microsoft" for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    remove_unused(graph)
    return proto


def is_product(node: onnx.NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    """Tell whether a node multiplies activations with one stored matrix of a type that MatMulNBits takes."""
    if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return False
    tensor = stored.get(node.input[1])
    return tensor is not None and len(tensor.dims) == 2 and tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)


def round_blocks(matrix: Array, bits: int, block_size: int) -> tuple[Array, Array, Array]:
    """Round a matrix (inputs, outputs) to the nearest grid points, block by block along the inputs.

    Returns:
        codes (outputs, blocks, block size), scales (outputs, blocks), zero points (outputs, blocks);
        the value is (code - zero point) * scale.
    """
    rows, columns = matrix.shape
    blocks = -(-rows // block_size)
    padded = np.zeros((columns, blocks * block_size), np.float32)
    padded[:, :rows] = matrix.T
    values = padded.reshape(columns, blocks, block_size)
    codes, scales, zeros = block_grid(values, bits)
    return codes.astype(np.uint8), scales, zeros.astype(np.uint8)


def block_grid(values: Array, bits: int) -> tuple[Array, Array, Array]:
    """Return codes, scales and zero points of the blocks on the last axis, each with the best of the ranges tried."""
    best = _grid(values, bits, 1.0)
    least = _error(values, *best)
    for shrink in SHRINKS:
        tried = _grid(values, bits, shrink)
        error = _error(values, *tried)
        better = error < least
        codes = np.where(better[..., None], tried[0], best[0])
        best = codes, np.where(better, tried[1], best[1]), np.where(better, tried[2], best[2])
        least = np.minimum(least, error)
    return best


def _grid(values: Array, bits: int, shrink: float) -> tuple[Array, Array, Array]:
    top = np.float32(2**bits - 1)
    low = np.minimum(values.min(axis=-1), 0) * np.float32(shrink)
    high = np.maximum(values.max(axis=-1), 0) * np.float32(shrink)
    scales = (high - low) / top
    safe = np.where(scales > 0, scales, np.float32(1))
    zeros = np.clip(np.rint(-low / safe), 0, top)
    codes = np.clip(np.rint(values / safe[..., None]) + zeros[..., None], 0, top)
    return codes, safe, zeros


def _error(values: Array, codes: Array, scales: Array, zeros: Array) -> Array:
    error: Array = np.square((codes - zeros[..., None]) * scales[..., None] - values).sum(axis=-1)
    return error


def pack(codes: Array, bits: int) -> Array:
    """Return codes as bytes along the last axis: two of 4 bits share a byte, the first one in the low half."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], axis=-1)
    packed: Array = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return packed
