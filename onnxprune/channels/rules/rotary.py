"""Rotary position embeddings: the two positions that are rotated into each other go together."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.types import IntArray


@rule("RotaryEmbedding", domain=MICROSOFT)
def fused_rotary_embedding(ctx: Context) -> None:
    """(y[h, p], y[h, p + n]) = rotation by angle[position, p] of (x[h, p], x[h, p + n]); pairs where interleaved"""
    ctx.per_batch(1, ctx.axes(0)[0], "positions")
    rotate(ctx, cosine=2, sine=3)


@rule("RotaryEmbedding")
def rotary_embedding(ctx: Context) -> None:
    """(y[h, p], y[h, p + n]) = rotation by angle[position, p] of (x[h, p], x[h, p + n]); pairs where interleaved"""
    ctx.per_batch(3, ctx.axes(0)[0], "positions")
    rotate(ctx, cosine=1, sine=2)


def rotate(ctx: Context, cosine: int, sine: int) -> None:
    """Tie the pairs of the rotated part of a head and the columns of both tables; the rest of a head passes."""
    data = ctx.axes(0)
    angles = ctx.shape(cosine)[-1]
    ctx.pin(data[-2], "positions")
    head = _head(ctx, angles)
    rotated = 2 * angles
    if len(head) < rotated:
        raise RuleError(f"{ctx.node.label}: its tables have {angles} angles for a head of {len(head)} positions")
    pairs = ctx.fresh(angles)
    pair = ctx.pinned(2, "the halves of a rotation")
    interleaved = bool(ctx.node.attribute("interleaved", 0))
    ctx.product(head[:rotated], [pairs, pair] if interleaved else [pair, pairs])
    if ctx.node.attribute("rotary_embedding_dim", 0):
        ctx.attribute_size("rotary_embedding_dim", head[:rotated])
    elif len(head) != rotated:
        ctx.pin(head, "a part of it is rotated")
    for index in (cosine, sine):
        tables = ctx.axes(index)
        for back, ids in enumerate(reversed(tables[:-1]), start=1):
            if back == 2 and len(ids) == len(data[0]):
                ctx.tie(ids, data[0])
            else:
                ctx.pin(ids, "positions")
        ctx.tie(tables[-1], pairs)
        for axis in range(len(tables)):
            ctx.role(index, axis, "scales" if axis == len(tables) - 1 else "internal")
    ctx.set(data, zero=ctx.is_zero(0))


def _head(ctx: Context, angles: int) -> IntArray:
    """Ids of the positions of a head; a last axis of heads x positions is split."""
    data = ctx.axes(0)
    if len(data) == 4:
        return data[3]
    listed = int(ctx.node.attribute("num_heads", 0))
    if not listed and ctx.node.attribute("rotary_embedding_dim", 0):
        raise RuleError(f"{ctx.node.label}: the number of heads is not spelled out")
    heads = ctx.fresh(listed or len(data[-1]) // (2 * angles))
    head = ctx.fresh(len(data[-1]) // len(heads))
    ctx.product(data[-1], [heads, head])
    if listed:
        ctx.attribute_size("num_heads", heads)
    return head
