"""Attention in which several query heads share a key and value head."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.rules.attention import (
    Heads,
    contract_heads,
    keep_scale,
    make_heads,
    sequence,
    set_cache,
    tie_bias,
    tie_cache,
)
from onnxprune.types import IntArray


@rule("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(ctx: Context) -> None:
    """y[b, s, (k, r, d)] of query heads (k, r), key and value heads k; q, k and v may be packed on one axis"""
    query = ctx.axes(0)
    count, shared = int(ctx.node.attribute("num_heads")), int(ctx.node.attribute("kv_num_heads"))
    packed = not ctx.has(1)
    width = len(query[2]) // (count + 2 * shared if packed else count)
    heads = make_heads(ctx, count, shared, width, width, tied=True)
    ctx.pin(heads.width, "its kernels need head sizes that are multiples of 16")
    sequence(ctx, query[1])
    if packed:
        first, second = count * width, (count + shared) * width
        heads.query_flat(ctx, query[2][:first])
        heads.key_flat(ctx, query[2][first:second])
        heads.value_flat(ctx, query[2][second:])
    else:
        heads.query_flat(ctx, query[2])
        heads.key_flat(ctx, ctx.axes(1)[2])
        heads.value_flat(ctx, ctx.axes(2)[2])
        for index in (1, 2):
            ctx.tie(ctx.axes(index)[0], query[0])
            sequence(ctx, ctx.axes(index)[1])
    for index in (3, 4):
        tie_cache(ctx, index, heads.shared, heads.width, query[0])
    for index in (5, 9):
        ctx.per_batch(index, query[0], "lengths and positions")
    for index in (6, 7, 8):
        ctx.pin_input(index, "lengths and tables of positions")
    tie_bias(ctx, 10, heads.query, query[0])
    if ctx.has(11):
        ctx.tie(ctx.axes(11)[0], heads.query)
    for index in range(12, len(ctx.node.inputs)):
        ctx.pin_input(index, "scales of the past")
    value = 0 if packed else 2
    key_zero = ctx.is_zero(0 if packed else 1) and ctx.is_zero(3)
    value_zero = ctx.is_zero(value) and ctx.is_zero(4)
    ctx.attribute_size("num_heads", heads.query)
    ctx.attribute_size("kv_num_heads", heads.shared)
    ctx.set([query[0], query[1], heads.output_flat(ctx)], zero=value_zero)
    set_cache(ctx, 1, heads.shared, heads.width, query[0], key_zero)
    set_cache(ctx, 2, heads.shared, heads.width, query[0], value_zero)
    _set_scores(ctx, heads, query[0], query[1])


@rule("Attention")
def attention(ctx: Context) -> None:
    """y[b, (k, r), s, e] of query heads (k, r), key and value heads k; in 3-D form heads and positions are one axis"""
    query, key, value = (ctx.axes(index) for index in (0, 1, 2))
    flat = len(query) == 3
    if any(len(axes) != len(query) for axes in (key, value)):
        raise RuleError(f"{ctx.node.label}: its inputs have different ranks")
    if flat:
        count, shared = int(ctx.node.attribute("q_num_heads")), int(ctx.node.attribute("kv_num_heads"))
        widths = len(query[2]) // count, len(value[2]) // shared
    else:
        count, shared = len(query[1]), len(key[1])
        widths = len(query[3]), len(value[3])
    heads = make_heads(ctx, count, shared, *widths)
    if flat:
        heads.query_flat(ctx, query[2])
        heads.key_flat(ctx, key[2])
        heads.value_flat(ctx, value[2])
    else:
        for axes, head_ids, width in (
            (query, heads.query, heads.width),
            (key, heads.shared, heads.width),
            (value, heads.shared, heads.value_width),
        ):
            ctx.tie(axes[1], head_ids)
            ctx.tie(axes[3], width)
    for axes in (query, key, value):
        ctx.tie(axes[0], query[0])
        sequence(ctx, axes[1] if flat else axes[2])
    tie_bias(ctx, 3, heads.query, query[0])
    tie_cache(ctx, 4, heads.shared, heads.width, query[0])
    tie_cache(ctx, 5, heads.shared, heads.value_width, query[0])
    ctx.per_batch(6, query[0], "lengths of keys and values")
    key_zero, value_zero = ctx.is_zero(1) and ctx.is_zero(4), ctx.is_zero(2) and ctx.is_zero(5)
    contract_heads(ctx, heads, ctx.is_zero(0) or key_zero)
    keep_scale(ctx, heads.width)
    ctx.attribute_size("q_num_heads", heads.query)
    ctx.attribute_size("kv_num_heads", heads.shared)
    if flat:
        ctx.set([query[0], query[1], heads.output_flat(ctx)], zero=value_zero)
    else:
        ctx.set([query[0], heads.query, query[2], heads.value_width], zero=value_zero)
    set_cache(ctx, 1, heads.shared, heads.width, query[0], key_zero)
    set_cache(ctx, 2, heads.shared, heads.value_width, query[0], value_zero)
    _set_scores(ctx, heads, query[0], query[1] if flat else query[2])


def _set_scores(ctx: Context, heads: Heads, batch: IntArray, queries: IntArray) -> None:
    if len(ctx.node.outputs) > 3 and ctx.node.outputs[3]:
        length = ctx.pinned(ctx.output_shape(3)[-1], "attention runs along it")
        ctx.set([batch, heads.query, queries, length], output=3)
