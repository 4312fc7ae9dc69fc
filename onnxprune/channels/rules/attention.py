"""Fused attention: heads and positions inside heads, whichever layout the operator has.

softmax over t of (sum over d of q[h, s, d] * k[h, t, d] * scale), then y[h, s, e] = sum over t of that * v[h, t, e].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.space import Axes
from onnxprune.types import IntArray

SEQUENCE = "attention runs along it"


@dataclass(frozen=True, eq=False)
class Heads:
    """Ids of an attention: query heads, key and value heads, positions of q and k, positions of v."""

    query: IntArray
    shared: IntArray
    width: IntArray
    value_width: IntArray

    def query_flat(self, ctx: Context, flat: IntArray) -> None:
        """`flat` is query heads x positions."""
        ctx.product(flat, [self.query, self.width])

    def key_flat(self, ctx: Context, flat: IntArray) -> None:
        """`flat` is key heads x positions."""
        ctx.product(flat, [self.shared, self.width])

    def value_flat(self, ctx: Context, flat: IntArray) -> None:
        """`flat` is value heads x positions."""
        ctx.product(flat, [self.shared, self.value_width])

    def output_flat(self, ctx: Context) -> IntArray:
        """Return ids of query heads x positions of v."""
        flat = ctx.fresh(len(self.query) * len(self.value_width))
        ctx.product(flat, [self.query, self.value_width])
        return flat


def make_heads(ctx: Context, query: int, shared: int, width: int, value_width: int, tied: bool = False) -> Heads:
    """Make the ids of an attention; query head (k, r) uses key and value head k.

    Args:
        query: number of query heads.
        shared: number of key and value heads.
        width: positions of q and k in a head.
        value_width: positions of v in a head.
        tied: positions of v are those of q and k.
    """
    shared_ids = ctx.fresh(shared)
    query_ids = shared_ids
    if query != shared:
        query_ids = ctx.fresh(query)
        ctx.product(query_ids, [shared_ids, ctx.fresh(query // shared)])
    width_ids = ctx.fresh(width)
    value_ids = width_ids if tied else ctx.fresh(value_width)
    if len(query_ids) > 1:
        ctx.state.attentions += [(query_ids, width_ids), (query_ids, value_ids)]
    return Heads(query_ids, shared_ids, width_ids, value_ids)


def keep_scale(ctx: Context, width: IntArray) -> None:
    """The operator computes its scale from the head size unless it is told; it must stay the old one."""
    if not ctx.node.attribute("scale", 0.0):
        ctx.attribute_value("scale", 1 / math.sqrt(len(width)), width)


def contract_heads(ctx: Context, heads: Heads, zero: bool) -> None:
    """q and k are contracted over their positions."""
    if not zero:
        ctx.normalise(heads.width)


def sequence(ctx: Context, *axes: IntArray) -> None:
    """Attention sees every position of these axes."""
    for ids in axes:
        ctx.pin(ids, SEQUENCE)


def tie_bias(ctx: Context, index: int, heads: IntArray, batch: IntArray) -> None:
    """A bias or mask [batch, head, s, t], of any of which it may have one for all, that is added before the softmax."""
    if not ctx.has(index):
        return
    axes = ctx.axes(index)
    for back, ids in enumerate(reversed(axes), start=1):
        if back == 3 and len(ids) == len(heads):
            ctx.tie(ids, heads)
        elif back == 4 and len(ids) == len(batch):
            ctx.tie(ids, batch)
        else:
            sequence(ctx, ids)


def tie_cache(ctx: Context, index: int, heads: IntArray, width: IntArray, batch: IntArray) -> None:
    """A past [b, head, t, d], or both of them as [2, b, head, t, d]."""
    if not ctx.has(index):
        return
    axes = ctx.axes(index)
    if len(axes) not in (4, 5):
        raise RuleError(f"{ctx.node.label}: its past has {len(axes)} axes")
    for ids, own in zip(axes[-4:], (batch, heads, None, width), strict=True):
        if own is None:
            sequence(ctx, ids)
        else:
            ctx.tie(ids, own)
    if len(axes) == 5:
        ctx.pin(axes[0], "keys and values")


def set_cache(ctx: Context, output: int, heads: IntArray, width: IntArray, batch: IntArray, zero: bool) -> None:
    """The present has the layout of the past."""
    if output >= len(ctx.node.outputs) or not ctx.node.outputs[output]:
        return
    shape = ctx.output_shape(output)
    axes: Axes = [batch, heads, ctx.pinned(shape[-2], SEQUENCE), width]
    if len(shape) == 5:
        axes = [ctx.pinned(2, "keys and values"), *axes]
    ctx.set(axes, output=output, zero=zero)


@rule("Attention", domain=MICROSOFT)
def fused_attention(ctx: Context) -> None:
    """q, k, v = x W + b, packed along the columns of W; y[b, s, (h, e)]"""
    data, weight = ctx.axes(0), ctx.axes(1)
    count = int(ctx.node.attribute("num_heads"))
    listed = ctx.node.attribute("qkv_hidden_sizes")
    sizes = [int(s) for s in listed] if listed else [len(weight[1]) // 3] * 3
    heads = make_heads(ctx, count, count, sizes[0] // count, sizes[2] // count, tied=not listed or ctx.has(4))
    for index in (1, 2):
        if ctx.has(index):
            packed_columns(ctx, ctx.axes(index)[-1], sizes, heads)
    if ctx.node.attribute("do_rotary", 0):
        ctx.pin(heads.width, "positions are rotated")
    ctx.role(1, 0, "reads")
    ctx.role(1, 1, "writes")
    ctx.tie(data[2], weight[0])
    ctx.contract(data[2], 0, 1)
    sequence(ctx, data[1])
    ctx.per_batch(3, data[0], "a mask")
    ctx.pin_input(6, "the length of the past")
    tie_cache(ctx, 4, heads.shared, heads.width, data[0])
    tie_bias(ctx, 5, heads.query, data[0])
    zero = ctx.is_zero(1) and ctx.is_zero(2)
    contract_heads(ctx, heads, zero)
    keep_scale(ctx, heads.width)
    ctx.attribute_size("num_heads", heads.query)
    out = heads.output_flat(ctx)
    if listed:
        for entry, ids in enumerate(_columns(ctx.axes(1)[1], sizes)):
            ctx.attribute_size("qkv_hidden_sizes", ids, entry)
    ctx.set([data[0], data[1], out], zero=zero)
    set_cache(ctx, 1, heads.shared, heads.width, data[0], zero and ctx.is_zero(4))


def _columns(flat: IntArray, sizes: list[int]) -> list[IntArray]:
    return [flat[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]


def packed_columns(ctx: Context, flat: IntArray, sizes: list[int], heads: Heads) -> None:
    """q, k and v side by side on one axis."""
    if sum(sizes) != len(flat):
        raise RuleError(f"{ctx.node.label}: q, k and v of {sizes} positions are not {len(flat)} columns")
    query, key, value = _columns(flat, sizes)
    heads.query_flat(ctx, query)
    heads.key_flat(ctx, key)
    heads.value_flat(ctx, value)


@rule("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(ctx: Context) -> None:
    """y[b, s, (h, e)] from q[b, s, (h, d)], k, v; also packed as [b, s, h, 3, d] or with k, v as [b, h, t, d]"""
    query = ctx.axes(0)
    count = int(ctx.node.attribute("num_heads"))
    widths = _widths(ctx, count)
    heads = make_heads(ctx, count, count, *widths, tied=any(ctx.has(i) and len(ctx.axes(i)) == 5 for i in (0, 1)))
    sequence(ctx, query[1])
    for index, tie_flat in ((0, heads.query_flat), (1, heads.key_flat), (2, heads.value_flat)):
        if ctx.has(index):
            _operand(ctx, index, heads, heads.value_width if index == 2 else heads.width, tie_flat)
            ctx.tie(ctx.axes(index)[0], query[0])
    if ctx.has(3):
        packed_columns(ctx, ctx.axes(3)[0], [count * widths[0], count * widths[0], count * widths[1]], heads)
    ctx.per_batch(4, query[0], "a mask")
    tie_bias(ctx, 5, heads.query, query[0])
    tie_cache(ctx, 6, heads.shared, heads.width, query[0])
    tie_cache(ctx, 7, heads.shared, heads.value_width, query[0])
    ctx.pin_input(8, "the length of the past")
    ctx.pin_input(9, "the state of a cache")
    if ctx.has(9):
        ctx.pin(query[0], "the state of a cache")
    biased = ctx.is_zero(3)
    value_zero = biased and ctx.is_zero(2 if ctx.has(2) else 1 if ctx.has(1) else 0) and ctx.is_zero(7)
    contract_heads(ctx, heads, biased and (ctx.is_zero(0) or (ctx.has(1) and ctx.is_zero(1) and ctx.is_zero(6))))
    keep_scale(ctx, heads.width)
    ctx.attribute_size("num_heads", heads.query)
    ctx.set([query[0], query[1], heads.output_flat(ctx)], zero=value_zero)
    set_cache(ctx, 1, heads.shared, heads.width, query[0], biased and ctx.has(1) and ctx.is_zero(1) and ctx.is_zero(6))
    set_cache(ctx, 2, heads.shared, heads.value_width, query[0], value_zero)
    _set_scores(ctx, 3, query, heads)


def _widths(ctx: Context, count: int) -> tuple[int, int]:
    """Positions per head of q and of v."""
    query = ctx.shape(0)
    width = query[-1] if len(query) == 5 else query[-1] // count
    if not ctx.has(2):
        return width, width
    value = ctx.shape(2)
    return width, value[-1] if len(value) == 4 else value[-1] // count


def _operand(
    ctx: Context, index: int, heads: Heads, width: IntArray, tie_flat: Callable[[Context, IntArray], None]
) -> None:
    """Tie one of q, k, v in any layout."""
    axes = ctx.axes(index)
    if len(axes) == 3:
        sequence(ctx, axes[1])
        tie_flat(ctx, axes[2])
    elif len(axes) == 4:
        ctx.tie(axes[1], heads.shared)
        sequence(ctx, axes[2])
        ctx.tie(axes[3], width)
    else:
        sequence(ctx, axes[1])
        ctx.tie(axes[2], heads.query)
        ctx.pin(axes[3], "queries, keys and values")
        ctx.tie(axes[4], width)


def _set_scores(ctx: Context, output: int, query: Axes, heads: Heads) -> None:
    if output < len(ctx.node.outputs) and ctx.node.outputs[output]:
        length = ctx.pinned(ctx.output_shape(output)[-1], SEQUENCE)
        ctx.set([query[0], heads.query, query[-2] if len(query) == 4 else query[1], length], output=output)
