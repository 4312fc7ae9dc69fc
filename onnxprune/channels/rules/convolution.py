"""Convolutions: channels are contracted or written, spatial axes and kernel positions stay."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.space import Axes
from onnxprune.types import IntArray


def spatial(ctx: Context, output: int = 0, first: int = 2) -> Axes:
    """Return pinned output axes from `first` on."""
    return [ctx.pinned(size, "a spatial axis") for size in ctx.output_shape(output)[first:]]


def pin_tail(ctx: Context, index: int, first: int, reason: str) -> None:
    """Pin the axes of an input from `first` on."""
    for ids in ctx.axes(index)[first:]:
        ctx.pin(ids, reason)


def kernel(ctx: Context, index: int, first: int = 2) -> None:
    """Pin the kernel positions of a weight; nobody asks why they stay."""
    pin_tail(ctx, index, first, "a kernel position")
    for axis in range(first, len(ctx.axes(index))):
        ctx.role(index, axis, "internal")


def convolve(ctx: Context, x: int = 0, w: int = 1, bias: int = 2, channels_last: bool = False) -> IntArray:
    """y[n, m, ..] = sum over c of W[m, c, ..] * x[n, c, ..] + b[m]; with groups m = (g, o) and input channel = (g, c).

    Returns:
        (output channels,) ids of the output channels.
    """
    data, weight = ctx.axes(x), ctx.axes(w)
    data = [data[0], data[-1], *data[1:-1]] if channels_last else data
    groups = int(ctx.node.attribute("group", 1))
    for ids in data[2:]:
        ctx.pin(ids, "a spatial axis of a convolution")
    ctx.contract(data[1], x, w)
    kernel(ctx, w)
    ctx.role(w, 0, "writes")
    ctx.role(w, 1, "reads")
    if groups == 1:
        ctx.tie(data[1], weight[1])
    else:
        depthwise = len(weight[1]) == 1
        group_ids = data[1] if depthwise else ctx.fresh(groups)
        if depthwise:
            ctx.role(w, 0, "scales")
        else:
            ctx.product(data[1], [group_ids, weight[1]])
        ctx.product(weight[0], [group_ids, ctx.fresh(len(weight[0]) // groups)])
        ctx.attribute_size("group", group_ids)
    if ctx.has(bias):
        ctx.tie(ctx.axes(bias)[0], weight[0])
    return weight[0]


@rule("Conv")
def conv(ctx: Context) -> None:
    """y[n, m, ..] = sum over c of W[m, c, ..] * x[n, c, ..] + b[m]"""
    channels = convolve(ctx)
    ctx.set([ctx.axes(0)[0], channels, *spatial(ctx)], zero=ctx.is_zero(1) and ctx.is_zero(2))


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(ctx: Context) -> None:
    """y = activation(conv(x, W) + b + z)"""
    channels = convolve(ctx)
    result = [ctx.axes(0)[0], channels, *spatial(ctx)]
    if ctx.has(3):
        for own, added in zip(result, ctx.axes(3), strict=True):
            ctx.tie(own, added)
    keeps_zero = ctx.node.attribute("activation", "Relu") in ("", "Relu", "LeakyRelu", "Tanh", "HardSwish")
    ctx.set(result, zero=keeps_zero and ctx.is_zero(1) and ctx.is_zero(2) and ctx.is_zero(3))


@rule("ConvTranspose")
def conv_transpose(ctx: Context) -> None:
    """y[n, (g, o), ..] = sum over c of W[(g, c), o, ..] * x[n, (g, c), ..] + b[(g, o)]"""
    data, weight = ctx.axes(0), ctx.axes(1)
    groups = int(ctx.node.attribute("group", 1))
    pin_tail(ctx, 0, 2, "a spatial axis of a convolution")
    kernel(ctx, 1)
    ctx.role(1, 0, "reads")
    ctx.role(1, 1, "writes")
    ctx.tie(data[1], weight[0])
    if groups == 1:
        channels = weight[1]
    else:
        inner = len(weight[0]) // groups
        depthwise = inner == 1
        group_ids = data[1] if depthwise else ctx.fresh(groups)
        if depthwise:
            ctx.role(1, 0, "scales")
        else:
            ctx.product(weight[0], [group_ids, ctx.fresh(inner)])
        channels = group_ids if len(weight[1]) == 1 else ctx.fresh(groups * len(weight[1]))
        ctx.product(channels, [group_ids, weight[1]])
        ctx.attribute_size("group", group_ids)
    if ctx.has(2):
        ctx.tie(ctx.axes(2)[0], channels)
    ctx.set([data[0], channels, *spatial(ctx)], zero=ctx.is_zero(1) and ctx.is_zero(2))


@rule("DeformConv")
def deform_conv(ctx: Context) -> None:
    """y[n, m, ..] = sum over c of W[m, c, ..] * x[n, c, shifted ..] + b[m]; offsets and masks stay"""
    groups, offset_groups = ctx.node.attribute("group", 1), ctx.node.attribute("offset_group", 1)
    ctx.per_batch(2, ctx.axes(0)[0], "the offsets of a deformable convolution")
    ctx.per_batch(4, ctx.axes(0)[0], "the mask of a deformable convolution")
    if groups != 1 or offset_groups != 1:
        ctx.pin_input(0, "a deformable convolution with groups")
        ctx.pin_input(1, "a deformable convolution with groups")
    channels = convolve(ctx, bias=3)
    ctx.set([ctx.axes(0)[0], channels, *spatial(ctx)], zero=ctx.is_zero(1) and ctx.is_zero(3))


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(ctx: Context) -> None:
    """y[n, c, ..] = pool of x[n, c, ..] over space"""
    data = ctx.axes(0)
    pin_tail(ctx, 0, 2, "a spatial axis of a pooling")
    if len(ctx.node.outputs) > 1 and ctx.node.outputs[1]:
        ctx.pin(data[1], "the indices of this pooling count channels")
        ctx.set([ctx.pinned(s, "indices of a pooling") for s in ctx.output_shape(1)], output=1)
    ctx.set([data[0], data[1], *spatial(ctx)], zero=ctx.is_zero(0))


@rule("DepthToSpace")
def depth_to_space(ctx: Context) -> None:
    """DCR: y[n, c, (h, i), (w, j)] = x[n, (i, j, c), h, w]; CRD: x[n, (c, i, j), h, w]"""
    data = ctx.axes(0)
    block = int(ctx.node.attribute("blocksize"))
    pin_tail(ctx, 0, 2, "a spatial axis")
    channels = ctx.fresh(len(data[1]) // block**2)
    inner = ctx.pinned(block**2, "the position inside a block")
    order = [inner, channels] if ctx.node.attribute("mode", "DCR") == "DCR" else [channels, inner]
    ctx.product(data[1], order)
    ctx.set([data[0], channels, *spatial(ctx)], zero=ctx.is_zero(0))


@rule("SpaceToDepth")
def space_to_depth(ctx: Context) -> None:
    """DCR: y[n, (i, j, c), h, w] = x[n, c, (h, i), (w, j)]; CRD: y[n, (c, i, j), h, w]"""
    data = ctx.axes(0)
    block = int(ctx.node.attribute("blocksize"))
    pin_tail(ctx, 0, 2, "a spatial axis")
    channels = ctx.fresh(len(data[1]) * block**2)
    inner = ctx.pinned(block**2, "the position inside a block")
    ctx.product(channels, [inner, data[1]] if ctx.node.attribute("mode", "DCR") == "DCR" else [data[1], inner])
    ctx.set([data[0], channels, *spatial(ctx)], zero=ctx.is_zero(0))


@rule("Resize", "Upsample")
def resize(ctx: Context) -> None:
    """y[n, c, ..] = x[n, c, ..] at other places; an axis whose size stays keeps its positions"""
    data, shape = ctx.axes(0), ctx.output_shape()
    axes = ctx.node.attribute("axes")
    listed = [a % len(data) for a in axes] if axes is not None else list(range(len(data)))
    result: Axes = []
    for axis, ids in enumerate(data):
        if shape[axis] == len(ids):
            result.append(ids)
            if ctx.has(3) and axis in listed:
                ctx.entry_size(3, listed.index(axis), ids)
        else:
            ctx.pin(ids, "a resized axis")
            result.append(ctx.pinned(shape[axis], "a resized axis"))
    for index in range(1, len(ctx.node.inputs)):
        if ctx.has(index) and ctx.traced_value(index) is None and not ctx.is_parameter(index):
            ctx.pin_input(index, "regions and sizes")
    ctx.set(result, zero=ctx.is_zero(0))


@rule("GridSample")
def grid_sample(ctx: Context) -> None:
    """y[n, c, ..] = x[n, c, grid[n, ..]]"""
    data, grid = ctx.axes(0), ctx.axes(1)
    pin_tail(ctx, 0, 2, "a sampled axis")
    pin_tail(ctx, 1, 1, "a sampling grid")
    ctx.tie(data[0], grid[0])
    ctx.set([data[0], data[1], *spatial(ctx)], zero=ctx.is_zero(0))


@rule("RoiAlign")
def roi_align(ctx: Context) -> None:
    """y[r, c, h, w] = average of x[b[r], c, ..] around a region"""
    data = ctx.axes(0)
    for index in (1, 2):
        ctx.pin_input(index, "regions of interest")
    ctx.pin(data[0], "a batch that regions index")
    pin_tail(ctx, 0, 2, "a sampled axis")
    ctx.set([ctx.pinned(ctx.output_shape()[0], "a region"), data[1], *spatial(ctx)], zero=ctx.is_zero(0))
