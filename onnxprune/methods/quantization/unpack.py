"""Weights in few bits made numbers again: what packed products and look-ups compute with, as plain ones.

A model whose weights are packed in blocks can then be pruned, refitted and packed again (`weight-only`).
Source: the operators' specifications in onnxruntime (contrib operators), and for the tables of four bits Dettmers et
al., 2023, QLoRA, appendix E, as onnxruntime writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxprune.graph.initializers import add_to, free_name
from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import remove_unused
from onnxprune.methods.quantization.recognise import nodes as every
from onnxprune.types import Array

MICROSOFT = "com.microsoft"
FP4 = (0, 5.208333333e-3, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4)
FP4_TABLE = np.array([*FP4, *(-value for value in FP4)], np.float32)
NF4_TABLE = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip


def codes_of(packed: Array, bits: int) -> Array:
    """Return the numbers that bytes hold along the last axis, the first one in the lowest bits."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    spread = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return spread.reshape(*packed.shape[:-1], -1)


def along(parts: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """Return scales or zero points so that they meet a tensor of a shape: one for all, along an axis, or in blocks."""
    if parts.size == 1:
        return parts.reshape((1,) * len(shape))
    axis %= len(shape)
    if block:
        return np.repeat(parts, block, axis=axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    return parts.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def product_weights(node: onnx.NodeProto, read: Callable[[int], Array | None]) -> Array:
    """Return the (K, N) matrix of a MatMulNBits.

    Args:
        read: number of an input -> its values; None where it has none.
    """
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    bits, size, rows, inner = given.get("bits", 4), given["block_size"], given["N"], given["K"]
    blocks = -(-inner // size)
    packed, scales, zeros = read(1), read(2), read(3)
    if packed is None or scales is None:
        raise ValueError("its weights are not stored")
    codes = codes_of(packed.reshape(rows, blocks, -1), bits)[..., :size].astype(np.float32)
    middle: Array = np.full((rows, blocks), 2 ** (bits - 1), np.float32)
    if zeros is not None and zeros.dtype.kind == "f":
        middle = zeros.reshape(rows, blocks).astype(np.float32)
    elif zeros is not None:
        middle = codes_of(zeros.reshape(rows, -1), bits)[:, :blocks].astype(np.float32)
    values = (codes - middle[..., None]) * scales.reshape(rows, blocks, 1).astype(np.float32)
    return np.ascontiguousarray(values.reshape(rows, -1)[:, :inner].T)


def table_of_four_bits(node: onnx.NodeProto, read: Callable[[int], Array | None]) -> Array:
    """Return the (K, N) matrix of a MatMulBnb4: places in a table of 16 numbers, times the largest of their block."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rows, inner, size = given["N"], given["K"], given["block_size"]
    packed, largest = read(1), read(2)
    if packed is None or largest is None:
        raise ValueError("its weights are not stored")
    flat = packed.reshape(-1)
    codes = np.stack([flat >> 4, flat & 15], axis=-1).reshape(-1)[: rows * inner]
    values = (NF4_TABLE if given.get("quant_type", 1) else FP4_TABLE)[codes]
    scale = np.repeat(largest.astype(np.float32), size)[: rows * inner]
    return np.ascontiguousarray((values * scale).reshape(rows, inner).T)


def rows_of(node: onnx.NodeProto, read: Callable[[int], Array | None]) -> Array:
    """Return the table that a GatherBlockQuantized looks up."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    data, scales, zeros = read(0), read(2), read(3)
    if data is None or scales is None:
        raise ValueError("its table is not stored")
    bits, middle = given.get("bits", 4), 0
    if data.dtype == np.uint8:
        data, middle = codes_of(data, bits), 2 ** (bits - 1)
        zeros = codes_of(zeros, bits) if zeros is not None else None
    axis, size = given.get("quantize_axis", 1) % data.ndim, given.get("block_size", 128)
    count = data.shape[axis]

    def spread(entries: Array) -> Array:
        return np.take(np.repeat(entries.astype(np.float32), size, axis=axis), np.arange(count), axis=axis)

    if zeros is not None:
        blocks = scales.shape[axis]
        zeros = spread(np.take(zeros, np.arange(blocks), axis=axis))
    values: Array = (data.astype(np.float32) - (middle if zeros is None else zeros)) * spread(scales)
    return values


def unpack(proto: onnx.ModelProto, left: Collection[str], content: Callable[[TensorProto], Array] = to_array) -> int:
    """Make the packed weights of a model numbers, in place; return of how many nodes.

    Args:
        left: names of nodes that stay as they are.
        content: of a stored tensor.
    """
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = set(stored) | {name for node in graph.node for name in node.output}
    made: dict[tuple[str, ...], str] = {}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        plain = [node] if node.name in left else _plain(graph, node, _Store(stored, content), taken, made)
        count += plain != [node]
        nodes += plain
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    remove_unused(graph)
    if count and not any(node.domain == MICROSOFT for node in every(graph)):
        left_over = [entry for entry in proto.opset_import if entry.domain != MICROSOFT]
        del proto.opset_import[:]
        proto.opset_import.extend(left_over)
    return count


def is_packed(node: onnx.NodeProto, stored: Collection[str]) -> bool:
    """Tell whether a node computes with stored weights that `unpack` makes numbers."""
    if node.domain == MICROSOFT:
        ordered = node.op_type == "MatMulNBits" and len(node.input) > 4 and node.input[4]
        return node.op_type in PACKED and not ordered and _weight(node) in stored
    is_dequantized = node.op_type == "DequantizeLinear" and node.domain in ("", "ai.onnx")
    return is_dequantized and all(name in stored for name in node.input if name)


PACKED = {"MatMulNBits": product_weights, "MatMulBnb4": table_of_four_bits, "GatherBlockQuantized": rows_of}
"""Operators of com.microsoft with weights in few bits -> what makes them numbers."""


def _weight(node: onnx.NodeProto) -> str:
    return str(node.input[0 if node.op_type == "GatherBlockQuantized" else 1])


@dataclass(frozen=True)
class _Store:
    """Stored tensors by name, and what reads them."""

    tensors: Mapping[str, TensorProto]
    content: Callable[[TensorProto], Array]

    def read(self, node: onnx.NodeProto, index: int) -> Array | None:
        """Return the values of an input; None where it has none."""
        name = node.input[index] if index < len(node.input) else ""
        return self.content(self.tensors[name]) if name in self.tensors else None


def _plain(
    graph: onnx.GraphProto, node: onnx.NodeProto, store: _Store, taken: set[str], made: dict[tuple[str, ...], str]
) -> list[onnx.NodeProto]:
    """Return the nodes that compute with numbers what one node computes with packed weights."""
    if not is_packed(node, store.tensors):
        return [node]
    read = partial(store.read, node)

    if node.op_type == "DequantizeLinear":
        add_to(graph, node.output[0], _dequantized(node, read))
        return []
    scales = read(2)
    key = (node.op_type, *node.input[1:4], str(node.input[0]) * (node.op_type == "GatherBlockQuantized"))
    if key not in made:
        made[key] = free_name(f"{_weight(node)}.float", taken)
        values = PACKED[node.op_type](node, read)
        add_to(graph, made[key], values.astype(scales.dtype if scales is not None else np.float32))
    if node.op_type == "GatherBlockQuantized":
        axis = next((a.i for a in node.attribute if a.name == "gather_axis"), 0)
        return [helper.make_node("Gather", [made[key], node.input[1]], node.output, node.name, axis=axis)]
    bias = node.input[5] if len(node.input) > 5 else ""
    result = free_name(f"{node.output[0]}.product", taken) if bias else node.output[0]
    product = helper.make_node("MatMul", [node.input[0], made[key]], [result], node.name)
    return [product, helper.make_node("Add", [result, bias], node.output)] if bias else [product]


def _dequantized(node: onnx.NodeProto, read: Callable[[int], Array | None]) -> Array:
    """y = (x - zero point) * scale, for all of it, along an axis, or in blocks."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    data, scales, zeros = read(0), read(1), read(2)
    if data is None or scales is None:
        raise ValueError("it is not stored")
    axis, size = given.get("axis", 1), given.get("block_size", 0)

    def spread(entries: Array) -> Array:
        return along(entries.astype(np.float32), data.shape, axis, size)

    values = (data.astype(np.float32) - (spread(zeros) if zeros is not None else 0)) * spread(scales)
    result: Array = values.astype(scales.dtype)
    return result
