"""Integer operators between layers that onnxruntime writes in its QOperator format."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.rules.elementwise import broadcast, zeros_of


@rule("QLinearAdd", domain=MICROSOFT)
def quantized_add(ctx: Context) -> None:
    """y[i] = a[i] + b[i], every tensor with its scale and zero point"""
    result = broadcast(ctx, [0, 3])
    for index in (0, 3):
        ctx.zero_point(index, index + 2)
    ctx.set(result, zero=zeros_of(ctx, [0, 3], result, all))


@rule("QLinearMul", domain=MICROSOFT)
def quantized_multiply(ctx: Context) -> None:
    """y[i] = a[i] * b[i], every tensor with its scale and zero point"""
    result = broadcast(ctx, [0, 3])
    for index in (0, 3):
        ctx.zero_point(index, index + 2)
    ctx.set(result, zero=zeros_of(ctx, [0, 3], result, any))


@rule("QLinearWhere", domain=MICROSOFT)
def quantized_where(ctx: Context) -> None:
    """y[i] = a[i] if c[i] else b[i], every tensor with its scale and zero point"""
    result = broadcast(ctx, [0, 1, 4])
    for index in (1, 4):
        ctx.zero_point(index, index + 2)
    ctx.set(result, zero=zeros_of(ctx, [1, 4], result, all))


@rule("QLinearSigmoid", domain=MICROSOFT)
def quantized_sigmoid(ctx: Context) -> None:
    """y[i] = sigmoid(x[i])"""
    ctx.set(ctx.axes(0))


@rule("QLinearLeakyRelu", domain=MICROSOFT)
def quantized_leaky_relu(ctx: Context) -> None:
    """y[i] = x[i] if x[i] > 0 else alpha * x[i]"""
    ctx.set(ctx.axes(0), zero=ctx.is_zero(0))


@rule("QLinearSoftmax", domain=MICROSOFT)
def quantized_softmax(ctx: Context) -> None:
    """y[.., c] = exp(x[.., c]) / sum over c; before opset 13 over all axes from `axis` on"""
    data = ctx.axes(0)
    axis = int(ctx.node.attribute("axis", -1)) % len(data)
    old = int(ctx.node.attribute("opset", 13)) < 13
    for ids in data[axis:] if old else [data[axis]]:
        ctx.pin(ids, "the axis of a softmax")
    ctx.set(data)


@rule("QLinearConcat", domain=MICROSOFT)
def quantized_concat(ctx: Context) -> None:
    """y[.., (a, b, ..)] = a[..] then b[..], every part with its scale and zero point"""
    inputs = range(2, len(ctx.node.inputs), 3)
    parts = [ctx.axes(i) for i in inputs]
    for index in inputs:
        ctx.zero_point(index, index + 2)
    axis = int(ctx.node.attribute("axis")) % len(parts[0])
    for other in parts[1:]:
        for number, (a, b) in enumerate(zip(parts[0], other, strict=True)):
            if number != axis:
                ctx.tie(a, b)
    result = list(parts[0])
    result[axis] = np.concatenate([part[axis] for part in parts])
    ctx.set(result, zero=all(ctx.is_zero(i) for i in inputs))


@rule("QLinearGlobalAveragePool", "QLinearAveragePool", "NhwcMaxPool", domain=MICROSOFT)
def quantized_pool(ctx: Context) -> None:
    """y[n, c, ..] = pool of x[n, c, ..] over space; channels may stand last"""
    data, shape = ctx.axes(0), ctx.output_shape()
    last = ctx.node.op_type == "NhwcMaxPool" or bool(ctx.node.attribute("channels_last", 0))
    channel = len(data) - 1 if last else 1
    result = list(data)
    for axis in range(1, len(data)):
        if axis != channel:
            ctx.pin(data[axis], "a spatial axis of a pooling")
            result[axis] = ctx.pinned(shape[axis], "a spatial axis")
    ctx.set(result, zero=ctx.is_zero(0))
