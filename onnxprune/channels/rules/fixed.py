"""Operators whose positions mean something: what they touch stays, and the reason says why."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule

REASONS = {
    "Unique": "it compares its elements",
    "Multinomial": "its positions are drawn",
    "Det": "its matrices are taken as a whole",
    "MaxUnpool": "its elements are addressed by data",
    "AffineGrid": "a sampling grid",
    "STFT": "a transform runs along it",
    "HannWindow": "its size is data",
    "HammingWindow": "its size is data",
    "BlackmanWindow": "its size is data",
    "MelWeightMatrix": "its size is data",
    "RandomNormal": "random numbers of a fixed shape",
    "RandomUniform": "random numbers of a fixed shape",
    "Range": "it counts up to a size",
    "Shape": "its size is data",
    "Size": "its size is data",
    "NegativeLogLikelihoodLoss": "its positions are classes",
    "SoftmaxCrossEntropyLoss": "its positions are classes",
    "ImageDecoder": "an image is decoded",
    "TfIdfVectorizer": "its positions are words",
}
"""Operator -> why nothing of it may change."""

SEQUENCES = (
    *("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceInsert", "SequenceErase", "SequenceLength"),
    *("SequenceMap", "SplitToSequence", "ConcatFromSequence"),
    *("Optional", "OptionalGetElement", "OptionalHasElement"),
)


@rule(*REASONS)
def stays(ctx: Context) -> None:
    """y depends on where every position stands"""
    raise RuleError(f"{ctx.node.label}: {REASONS[ctx.node.op_type]}")


@rule(*SEQUENCES)
def sequences(ctx: Context) -> None:
    """tensors in a list are not followed"""
    raise RuleError(f"{ctx.node.label}: tensors in a sequence are not followed")


@rule("NonMaxSuppression")
def non_max_suppression(ctx: Context) -> None:
    """y[i] = (n, c, b): box b is the best of its kind among scores[n, c, ..]; every class is looked at alone"""
    if not ctx.state.boundary.ranks:
        raise RuleError(f"{ctx.node.label}: it gives the positions of boxes")
    ctx.pin_input(0, "its boxes are compared")
    scores = ctx.axes(1)
    for ids in (scores[0], scores[2]):
        ctx.pin(ids, "its boxes are compared")
    ctx.compete(scores[1], "it gives the positions of boxes")
    ctx.numbers(0, scores[1], column=1)
    ctx.set([ctx.pinned(size, "it gives the positions of boxes") for size in ctx.output_shape()])


@rule("NonZero")
def non_zero(ctx: Context) -> None:
    """y[k, i] = where the i-th element that is not zero stands on axis k of x; numbers follow a border that is cut"""
    reason = "it gives the positions of its elements"
    if not ctx.state.boundary.ranks or ctx.node.outputs[0] not in ctx.state.trace.shapes:
        raise RuleError(f"{ctx.node.label}: {reason}")
    for row, ids in enumerate(ctx.axes(0)):
        if len(ids) > 1 and not ctx.dynamic(0)[row]:
            ctx.compete(ids, reason)
            ctx.numbers(0, ids, row=row)
        else:
            ctx.pin(ids, reason)
    ctx.set([ctx.pinned(size, reason) for size in ctx.output_shape()])


@rule("EfficientNMS_TRT", domain="TRT")
@rule("EfficientNMS_TRT")
def plugin_suppression(ctx: Context) -> None:
    """count, boxes, scores and classes of what is best among scores[n, b, c]; every class is looked at alone"""
    reason = "it gives the positions of boxes"
    if not ctx.state.boundary.ranks or int(ctx.node.attribute("background_class", -1)) >= 0:
        raise RuleError(f"{ctx.node.label}: {reason}")
    scores = ctx.axes(1)
    if len(scores) != 3 or len(ctx.axes(0)) != 3 or len(ctx.node.outputs) < 4:
        raise RuleError(f"{ctx.node.label}: {reason}")
    for index in range(len(ctx.node.inputs)):
        if index != 1:
            ctx.pin_input(index, "its boxes are compared")
    for ids in scores[:2]:
        ctx.pin(ids, "its boxes are compared")
    ctx.compete(scores[2], reason)
    ctx.numbers(3, scores[2])


@rule("ZipMap", domain="ai.onnx.ml")
def zip_map(ctx: Context) -> None:
    """y[n] = a table of label[c] -> x[n, c]: labels go with their positions"""
    axes, names = ctx.axes(0), ("classlabels_int64s", "classlabels_strings")
    listed = [name for name in names if ctx.node.attribute(name)]
    if len(axes) != 2 or not ctx.state.boundary.ranks or len(listed) != 1:
        raise RuleError(f"{ctx.node.label}: its positions have labels")
    ctx.pin(axes[0], "its rows become tables")
    ctx.spoken.append(axes[1])
    ctx.attribute_list(listed[0], axes[1])


@rule("Compress")
def compress(ctx: Context) -> None:
    """y[.., i, ..] = the i-th x[.., j, ..] of those with condition[j]; the other axes pass"""
    axis = ctx.node.attribute("axis")
    ctx.pin_input(1, "a condition")
    if axis is None:
        raise RuleError(f"{ctx.node.label}: its elements are chosen by data")
    data = list(ctx.axes(0))
    axis = int(axis) % len(data)
    ctx.pin(data[axis], "its positions are chosen by data")
    data[axis] = ctx.pinned(ctx.output_shape()[axis], "chosen positions")
    ctx.set(data, zero=ctx.is_zero(0))


@rule("CenterCropPad")
def center_crop_pad(ctx: Context) -> None:
    """y[.., i, ..] = x[.., i + offset, ..]; axes whose size stays pass"""
    data, shape = list(ctx.axes(0)), ctx.output_shape()
    axes = ctx.node.attribute("axes") or range(len(data))
    for number in axes:
        axis = int(number) % len(data)
        ctx.pin(data[axis], "it is cropped or padded")
        data[axis] = ctx.pinned(shape[axis], "it is cropped or padded")
    ctx.set(data, zero=ctx.is_zero(0))


@rule("Col2Im")
def column_to_image(ctx: Context) -> None:
    """y[n, c, ..] = sum of the x[n, (c, kernel position), l] that fall there"""
    data, shape = ctx.axes(0), ctx.output_shape()
    channels = ctx.fresh(shape[1])
    ctx.product(data[1], [channels, ctx.pinned(len(data[1]) // len(channels), "a kernel position")])
    ctx.pin(data[2], "the blocks of an image")
    ctx.set([data[0], channels, *[ctx.pinned(s, "a spatial axis") for s in shape[2:]]], zero=ctx.is_zero(0))
