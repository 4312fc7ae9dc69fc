"""What onnxruntime's optimizers fuse around layers: embeddings with a norm, group norms, gated activations."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.types import IntArray


@rule("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(ctx: Context) -> None:
    """s[b, t, c] = word[id, c] + position[t, c] + segment[id, c]; y = normalised s over c * gamma[c] + beta[c]"""
    tokens = ctx.axes(0)
    hidden = ctx.axes(2)[1]
    for index in (0, 1, 7, 8):
        ctx.pin_input(index, "token numbers and masks")
    for index in (2, 3, 4):
        if ctx.has(index):
            rows, columns = ctx.axes(index)
            ctx.pin(rows, "its positions are looked up by data")
            ctx.tie(columns, hidden)
            ctx.role(index, 0, "scales")
            ctx.role(index, 1, "writes")
    for index in (5, 6):
        if ctx.has(index):
            ctx.tie(ctx.axes(index)[0], hidden)
    ctx.normalise(hidden)
    ctx.set([*tokens, hidden], zero=ctx.is_zero(5) and ctx.is_zero(6))
    if len(ctx.node.outputs) > 1 and ctx.node.outputs[1]:
        ctx.set([ctx.pinned(size, "lengths") for size in ctx.output_shape(1)], output=1)
    ctx.set([*tokens, hidden], output=2, zero=all(ctx.is_zero(i) for i in (2, 3, 4)))


@rule("GroupNorm", "SkipGroupNorm", domain=MICROSOFT)
def group_norm(ctx: Context) -> None:
    """y[n, .., (g, c)] = normalised x over c and space of a group * gamma + beta, x with a skip added"""
    data = ctx.axes(0)
    last = bool(ctx.node.attribute("channels_last", 1))
    channels = data[-1] if last else data[1]
    space = data[1:-1] if last else data[2:]
    groups = ctx.fresh(int(ctx.node.attribute("groups")))
    inner = ctx.fresh(len(channels) // len(groups))
    ctx.product(channels, [groups, inner])
    ctx.normalise(inner)
    ctx.attribute_size("groups", groups)
    for index in (1, 2, 4):
        if ctx.has(index):
            ctx.tie(ctx.axes(index)[-1], channels)
    if ctx.has(3):
        _tie_skip(ctx, 3, data[0], channels)
    for ids in space:
        ctx.pin(ids, "a spatial axis of a normalisation")
    ctx.set(data, zero=ctx.is_zero(1) and ctx.is_zero(2))
    ctx.set(data, output=1, zero=all(ctx.is_zero(i) for i in (0, 3, 4)))


def _tie_skip(ctx: Context, index: int, batch: IntArray, channels: IntArray) -> None:
    axes = ctx.axes(index)
    if len(axes[0]) > 1:
        ctx.tie(axes[0], batch)
    ctx.tie(axes[-1], channels)
    for ids in axes[1:-1]:
        ctx.pin(ids, "a spatial axis of a normalisation")


@rule("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(ctx: Context) -> None:
    """y[.., c] = (x[.., (0, c)] + b[(0, c)]) * gelu(x[.., (1, c)] + b[(1, c)])"""
    data = ctx.axes(0)
    ctx.tie(ctx.axes(1)[0], data[-1])
    inner = ctx.fresh(len(data[-1]) // 2)
    ctx.product(data[-1], [ctx.pinned(2, "the halves of a gated activation"), inner])
    ctx.set([*data[:-1], inner], zero=ctx.is_zero(0) and ctx.is_zero(1))


@rule("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(ctx: Context) -> None:
    """y = softmax of x + bias over the axes from `axis` on"""
    data = ctx.axes(0)
    for ids in data[int(ctx.node.attribute("axis", 1)) :]:
        ctx.pin(ids, "the axis of a softmax")
    for back, ids in enumerate(reversed(ctx.axes(1)), start=1):
        if len(ids) > 1:
            ctx.tie(ids, data[-back])
    ctx.set(data)
