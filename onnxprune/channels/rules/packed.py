"""Weights in few bits, packed in blocks of one scale: rows go freely, along a block only whole blocks do."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.types import IntArray

INSIDE = "the position inside a block of one scale"


@rule("MatMulNBits", domain=MICROSOFT)
def matmul_of_packed_weights(ctx: Context) -> None:
    """y[.., n] = sum over k = (block, i) of x[.., k] * (B[n, block, i] - zero[n, block]) * scale[n, block] + bias[n]"""
    data, packed = ctx.axes(0), ctx.axes(1)
    rows, blocks = packed[0], packed[1]
    size = int(ctx.node.attribute("block_size"))
    ctx.pin(packed[2], "packed bytes")
    if size * len(blocks) == len(data[-1]) and not ctx.has(4):
        ctx.product(data[-1], [blocks, ctx.pinned(size, INSIDE)])
    else:
        for ids in (data[-1], blocks):
            ctx.pin(ids, "its weights are packed in blocks that cannot be cut")
    ctx.role(1, 0, "writes")
    ctx.role(1, 1, "reads")
    ctx.role(1, 2, "internal")
    for index in (2, 3):
        if ctx.has(index):
            _packed_table(ctx, index, rows, blocks)
    ctx.pin_input(4, "an order of positions")
    if ctx.has(5):
        ctx.tie(ctx.axes(5)[0], rows)
    ctx.attribute_size("N", rows)
    ctx.attribute_size("K", data[-1])
    ctx.set([*data[:-1], rows], zero=ctx.is_zero(5))


def _packed_table(ctx: Context, index: int, rows: IntArray, blocks: IntArray) -> None:
    """Scales or zero points [n, block], on one axis or on two; several zero points may share a byte."""
    axes = ctx.axes(index)
    width = len(axes[0]) // len(rows) if len(axes) == 1 else len(axes[1])
    columns = blocks
    if width < len(blocks) and len(blocks) % width == 0:
        columns = ctx.fresh(width)
        ctx.product(blocks, [columns, ctx.pinned(len(blocks) // width, "zero points that share a byte")])
    elif width != len(blocks):
        columns = ctx.pinned(width, "packed bytes")
        ctx.pin(blocks, "its zero points share bytes")
    if len(axes) == 1:
        ctx.product(axes[0], [rows, columns])
        ctx.role(index, 0, "scales")
        return
    ctx.tie(axes[0], rows)
    ctx.tie(axes[1], columns)
    for axis in (0, 1):
        ctx.role(index, axis, "scales")


@rule("MatMulBnb4", domain=MICROSOFT)
def matmul_of_a_table(ctx: Context) -> None:
    """y[.., n] = sum over k of x[.., k] * table[B[(n, k)]] * largest[block of (n, k)], blocks of the flat matrix"""
    raise RuleError(f"{ctx.node.label}: its blocks run over rows; make its weights float first (quantize, mode float)")


@rule("GatherBlockQuantized", domain=MICROSOFT)
def rows_of_packed_weights(ctx: Context) -> None:
    """y[i.., (block, c)] = (W[id[i..], block, c] - zero[id[i..], block]) * scale[id[i..], block]"""
    data = ctx.axes(0)
    size, given = int(ctx.node.attribute("block_size", 128)), ctx.output_shape()
    axes = int(ctx.node.attribute("gather_axis", 0)), int(ctx.node.attribute("quantize_axis", 1))
    if len(data) != 2 or axes not in ((0, 1), (0, -1)):
        raise RuleError(f"{ctx.node.label}: it looks up along another axis than rows")
    rows, packed = data
    blocks = ctx.axes(2)[1]
    whole = given[-1] == size * len(blocks) and len(packed) % len(blocks) == 0
    hidden = ctx.fresh(given[-1])
    if whole:
        ctx.product(hidden, [blocks, ctx.pinned(size, INSIDE)])
        if len(packed) == given[-1]:
            ctx.tie(packed, hidden)
        else:
            ctx.product(packed, [blocks, ctx.pinned(len(packed) // len(blocks), INSIDE)])
    else:
        for ids in (hidden, packed, blocks):
            ctx.pin(ids, "its blocks of one scale do not divide it")
    ctx.pin(rows, "its positions are looked up by data")
    ctx.role(0, 0, "scales")
    ctx.role(0, 1, "writes")
    for index in (2, 3):
        if ctx.has(index):
            _packed_table(ctx, index, rows, blocks)
    ctx.set([*ctx.axes(1), hidden], zero=ctx.is_zero(2))
