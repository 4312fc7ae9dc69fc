"""Quantization to integers: scales and zero points follow the axis that they describe.

A removed position holds its zero point, which stands for the real value 0: "zero" of an integer tensor means that.
"""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.groups import Role
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.graph.sizes import FLOAT_TYPES
from onnxprune.types import IntArray


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain=MICROSOFT)
def quantize(ctx: Context) -> None:
    """y[.., c, ..] = x[.., c, ..] / scale[c] + zero_point[c], and back; in blocked form a scale per block"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", 1))
    for table in (1, 2):
        described_by(ctx, 0, table, axis)
    ctx.zero_point(0, 2, axis)
    ctx.set(data, zero=ctx.is_zero(0))


def described_by(ctx: Context, index: int, table: int, axis: int) -> None:
    """Tie the axes of a table of scales (or zero points) to the tensor that it describes.

    Args:
        index: input number of the tensor.
        table: input number of the scales or zero points.
        axis: the tensor's axis that a table of one axis follows.
    """
    if not ctx.has(table):
        return
    data, entries = ctx.axes(index), ctx.axes(table)
    if len(entries) == 1 and len(entries[0]) > 1:
        ctx.tie(entries[0], data[axis])
        ctx.role(table, 0, role_of_table(ctx, table))
        return
    for number, ids in enumerate(entries):
        if len(ids) > 1:
            _tie_blocks(ctx, data[number], ids)
            ctx.role(table, number, role_of_table(ctx, table))


def _tie_blocks(ctx: Context, data: IntArray, blocks: IntArray) -> None:
    """Position (block, place) of `data` is described by entry `block`."""
    size = int(ctx.node.attribute("block_size", 0)) or -(-len(data) // len(blocks))
    if len(data) == len(blocks):
        ctx.tie(data, blocks)
    elif size * len(blocks) == len(data):
        ctx.product(data, [blocks, ctx.pinned(size, "the position inside a block of one scale")])
    else:
        for ids in (data, blocks):
            ctx.pin(ids, "its blocks of one scale do not divide it")


@rule("DynamicQuantizeLinear")
def dynamic_quantize(ctx: Context) -> None:
    """y = x / scale + zero_point, with the scale of the smallest and largest x and 0"""
    data = ctx.axes(0)
    for ids in data:
        ctx.contract(ids, 0)
    ctx.set(data, zero=ctx.is_zero(0))
    for output in (1, 2):
        ctx.set([], output=output)


def tie_table(ctx: Context, table: int, ids: IntArray) -> None:
    """Scales or zero points of a matrix product: one for all, or one for every position of `ids`."""
    if not ctx.has(table):
        return
    for number, own in enumerate(ctx.axes(table)):
        if len(own) > 1 and len(own) == len(ids):
            ctx.tie(own, ids)
            ctx.role(table, number, role_of_table(ctx, table))
        else:
            for stuck in (own, ids) if len(own) > 1 else ():
                ctx.pin(stuck, "a table of scales over several axes")


def role_of_table(ctx: Context, table: int) -> Role:
    """Scales divide (their neutral value is 1), zero points are added."""
    return "divides" if ctx.state.trace.data_type(ctx.node.inputs[table]) in FLOAT_TYPES else "scales"
