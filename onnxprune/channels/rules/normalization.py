"""Normalisations, reductions and softmax: what mixes the positions of an axis."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.space import Axes

SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
KEEPS_ZERO = (*SUMS, "ReduceMean", "ReduceMax", "ReduceMin")


@rule("BatchNormalization")
def batch_normalization(ctx: Context) -> None:
    """y[n, c, ..] = (x[n, c, ..] - mean[c]) / sqrt(var[c] + eps) * scale[c] + bias[c]"""
    data = ctx.axes(0)
    channels = data[1] if len(data) > 1 else ctx.state.unit
    for index in range(1, 5):
        ctx.tie(ctx.axes(index)[0], channels)
    if ctx.node.attribute("training_mode", 0):
        for axis, ids in enumerate(data):
            if axis != 1:
                ctx.normalise(ids)
    ctx.set(data, zero=ctx.is_zero(1) and ctx.is_zero(2))
    for output in range(1, len(ctx.node.outputs)):
        if ctx.node.outputs[output]:
            ctx.set([channels], output=output)


@rule("InstanceNormalization")
def instance_normalization(ctx: Context) -> None:
    """y[n, c, ..] = normalised x[n, c, ..] over space * scale[c] + bias[c]"""
    data = ctx.axes(0)
    for index in (1, 2):
        ctx.tie(ctx.axes(index)[0], data[1])
    for ids in data[2:]:
        ctx.normalise(ids)
    only_channels = all(ctx.space.is_born_pinned(ids) for ids in data[2:])
    ctx.set(data, zero=only_channels and ctx.is_zero(1) and ctx.is_zero(2))


@rule("GroupNormalization")
def group_normalization(ctx: Context) -> None:
    """y[n, (g, c), ..] = normalised x over c and space of a group * scale + bias (per group before opset 21)"""
    data = ctx.axes(0)
    groups = int(ctx.node.attribute("num_groups"))
    width = len(data[1]) // groups
    group_ids, inner = ctx.fresh(groups), ctx.fresh(width)
    if groups == 1:
        inner = data[1]
    elif width == 1:
        group_ids = data[1]
    else:
        ctx.product(data[1], [group_ids, inner])
    ctx.normalise(inner)
    per_group = len(ctx.axes(1)[0]) == groups and groups != len(data[1])
    for index in (1, 2):
        ctx.tie(ctx.axes(index)[0], group_ids if per_group else data[1])
    ctx.attribute_size("num_groups", group_ids)
    for ids in data[2:]:
        ctx.normalise(ids)
    only_channels = all(ctx.space.is_born_pinned(ids) for ids in data[2:])
    ctx.set(data, zero=not per_group and only_channels and ctx.is_zero(1) and ctx.is_zero(2))


def normalise_tail(ctx: Context, axis: int, parameters: list[int], outputs: list[int]) -> None:
    """y[.., c] = normalised x[.., c] over the axes from `axis` on * scale[c] + bias[c]"""
    data = ctx.axes(0)
    tail = data[axis:]
    for index in parameters:
        if ctx.has(index):
            for own, stored in zip(reversed(tail), reversed(ctx.axes(index)), strict=False):
                if len(stored) > 1:
                    ctx.tie(own, stored)
    for ids in tail:
        ctx.normalise(ids)
    head_is_pinned = all(ctx.space.is_born_pinned(ids) for ids in data[:axis])
    zero = head_is_pinned and ctx.has(1) and all(ctx.is_zero(i) for i in parameters if ctx.has(i))
    ctx.set(data, zero=zero)
    for output in outputs:
        if output < len(ctx.node.outputs) and ctx.node.outputs[output]:
            ctx.set([*data[:axis], *[ctx.state.unit for _ in tail]], output=output)


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(ctx: Context) -> None:
    """y[.., c] = (x[.., c] - mean over c) / deviation over c * scale[c] + bias[c]"""
    axis = int(ctx.node.attribute("axis", -1)) % max(len(ctx.axes(0)), 1)
    normalise_tail(ctx, axis, [1, 2], [1, 2])


@rule("SimplifiedLayerNormalization")
@rule("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified_layer_normalization(ctx: Context) -> None:
    """y[.., c] = x[.., c] / root mean square over c * scale[c]"""
    axis = int(ctx.node.attribute("axis", -1)) % max(len(ctx.axes(0)), 1)
    normalise_tail(ctx, axis, [1], [1])


@rule("LpNormalization")
def lp_normalization(ctx: Context) -> None:
    """y[.., c, ..] = x[.., c, ..] / norm over c"""
    data = ctx.axes(0)
    ids = data[int(ctx.node.attribute("axis", -1))]
    ctx.contract(ids, 0)
    ctx.set(data, zero=ctx.is_zero(0))


@rule("MeanVarianceNormalization")
def mean_variance_normalization(ctx: Context) -> None:
    """y = (x - mean) / deviation over some axes; nothing guards the division, so a zeroed channel is 0 / 0"""
    data = ctx.axes(0)
    for ids in data:
        ctx.normalise(ids)
    ctx.set(data)


@rule("LRN")
def local_response_normalization(ctx: Context) -> None:
    """y[n, c, ..] = x[n, c, ..] / (k + a * sum over neighbours of c of x^2)^b"""
    data = ctx.axes(0)
    ctx.normalise(data[1])
    ctx.set(data, zero=ctx.is_zero(0))


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(ctx: Context) -> None:
    """y[.., c] = exp(x[.., c]) / sum over c; before opset 13 over all axes from `axis` on"""
    data = ctx.axes(0)
    old = ctx.node.version < 13
    axis = int(ctx.node.attribute("axis", 1 if old else -1)) % len(data)
    for ids in data[axis:] if old else [data[axis]]:
        ctx.compete(ids, "the axis of a softmax")
    ctx.set(data)


def reduced(ctx: Context, axes: list[int] | None, keep: bool) -> tuple[Axes, Axes, list[bool]]:
    """Return the ids of the reduced axes, those of the result, and where it is zero if zeros give zero."""
    data, zeros = ctx.axes(0), ctx.zeros(0)
    chosen = set(range(len(data))) if axes is None else {a % len(data) for a in axes}
    gone = [ids for axis, ids in enumerate(data) if axis in chosen]
    left = [a for a in range(len(data)) if keep or a not in chosen]
    result = [ctx.state.unit if a in chosen else data[a] for a in left]
    return gone, result, [a in chosen or zeros[a] for a in left]


@rule(
    *(*SUMS, "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"),
)
def reduce(ctx: Context) -> None:
    """y[..] = sum (mean, max, norm, ..) of x[.., c] over c"""
    axes = ctx.integers("axes", 1)
    if not axes:
        if ctx.node.attribute("noop_with_empty_axes", 0):
            ctx.set(ctx.axes(0), zero=ctx.zeros(0) if ctx.node.op_type in KEEPS_ZERO else False)
            return
        axes = None
    gone, left, zeros = reduced(ctx, axes, bool(ctx.node.attribute("keepdims", 1)))
    if ctx.node.op_type == "ReduceSum":
        for axis in range(len(ctx.axes(0))) if axes is None else axes:
            ctx.role(0, axis % len(ctx.axes(0)), "reads")
    for ids in gone:
        if ctx.node.op_type in SUMS:
            ctx.contract(ids, 0)
        else:
            ctx.normalise(ids)
    ctx.set(left, zero=zeros if ctx.node.op_type in KEEPS_ZERO else False)


@rule("ArgMax", "ArgMin")
def arg_reduce(ctx: Context) -> None:
    """y[..] = the position c with the largest x[.., c]"""
    axis = int(ctx.node.attribute("axis", 0))
    data = ctx.axes(0)
    if ctx.compete(data[axis], "its positions are counted"):
        ctx.numbers(0, data[axis])
    _, left, _ = reduced(ctx, [axis], bool(ctx.node.attribute("keepdims", 1)))
    ctx.set(left)


@rule("CumSum", "CumProd")
def cumulative(ctx: Context) -> None:
    """y[.., c] = sum over c' <= c of x[.., c']"""
    value = ctx.traced_value(1)
    if value is None:
        raise RuleError(f"{ctx.node.label}: its axis is computed from data")
    data = ctx.axes(0)
    ctx.pin(data[int(value.reshape(-1)[0])], "a cumulative sum runs along it")
    ctx.set(data)


@rule("TopK")
def top_k(ctx: Context) -> None:
    """values[.., i] = the i-th largest of x[.., c] over c"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", -1)) % len(data)
    size = ctx.output_shape()[axis]
    ranked = ctx.pinned(size, "ranked positions")
    if ctx.compete(data[axis], "its positions are ranked"):
        if ctx.state.boundary.ranks:
            ranked = ctx.fresh(size)
            if ctx.has(1):
                ctx.entry_size(1, 0, ranked)
            else:
                ctx.attribute_size("k", ranked)
        ctx.numbers(1, data[axis], ranked=ranked if ctx.state.boundary.ranks else None)
        ctx.takes(data[axis], size)
    for output in range(len(ctx.node.outputs)):
        if ctx.node.outputs[output]:
            ctx.set([ranked if number == axis else ids for number, ids in enumerate(data)], output=output)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(ctx: Context) -> None:
    """s = x + skip + bias; y[.., c] = normalised s[.., c] over c * gamma[c] + beta[c]"""
    data = ctx.axes(0)
    simplified = ctx.node.op_type.startswith("SkipSimplified")
    for back, ids in enumerate(reversed(ctx.axes(1)), start=1):
        if len(ids) > 1:
            ctx.tie(ids, data[-back])
    stored = [2, 3] if simplified else [2, 3, 4]
    for index in stored:
        if ctx.has(index):
            ctx.tie(ctx.axes(index)[0], data[-1])
    ctx.normalise(data[-1])
    scales = [2] if simplified else [2, 3]
    ctx.set(data, zero=all(ctx.is_zero(i) for i in scales))
    for output in (1, 2):
        if output < len(ctx.node.outputs) and ctx.node.outputs[output]:
            ctx.set([*data[:-1], ctx.state.unit], output=output)
    bias = 3 if simplified else 4
    ctx.set(data, output=3, zero=ctx.is_zero(0) and ctx.is_zero(1) and ctx.is_zero(bias))
