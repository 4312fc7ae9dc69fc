"""Convolutions and matrix products of integers."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.rules.convolution import convolve
from onnxprune.channels.rules.elementwise import zeros_of
from onnxprune.channels.rules.matrix import multiply, note_attention, operand_roles
from onnxprune.channels.rules.quantize import tie_table
from onnxprune.channels.space import Axes


@rule("QLinearMatMul")
def quantized_matmul(ctx: Context) -> None:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j], every tensor with its scale and zero point"""
    _matmul(ctx, 0, 3, left=(1, 2), right=(4, 5))


@rule("MatMulInteger")
def matmul_integer(ctx: Context) -> None:
    """y[.., i, j] = sum over k of (a[.., i, k] - za) * (b[.., k, j] - zb[j])"""
    _matmul(ctx, 0, 1, left=(2,), right=(3,))


@rule("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(ctx: Context) -> None:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j] * scales + bias[j]"""
    _matmul(ctx, 0, 1, left=(2, 4), right=(3, 5), bias=6)


@rule("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(ctx: Context) -> None:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j] * scale[j] + bias[j]; a is quantized on the way"""
    for ids in ctx.axes(0):
        ctx.contract(ids, 0)
    _matmul(ctx, 0, 1, left=(), right=(2, 3), bias=4)


def _matmul(ctx: Context, a: int, b: int, left: tuple[int, ...], right: tuple[int, ...], bias: int = -1) -> None:
    operand_roles(ctx, a, b)
    if right:
        ctx.zero_point(b, right[-1], axis=-1)
    product, zero = multiply(ctx, ctx.axes(a), ctx.axes(b), (a, b))
    note_attention(ctx, product, ctx.axes(a)[-1], (a, b))
    rows = ctx.axes(a)[-2] if len(ctx.axes(a)) > 1 else ctx.state.unit
    columns = ctx.axes(b)[-1] if len(ctx.axes(b)) > 1 else ctx.state.unit
    for tables, ids in ((left, rows), (right, columns)):
        for table in tables:
            tie_table(ctx, table, ids)
    if bias >= 0 and ctx.has(bias):
        ctx.tie(ctx.axes(bias)[-1], columns)
        zero = _with_bias(ctx, bias, product, zero)
    ctx.set(product, zero=zero)


@rule("QGemm", domain=MICROSOFT)
def quantized_gemm(ctx: Context) -> None:
    """y[i, j] = alpha * sum over k of a[i, k] * b[k, j] + c[j], every tensor with its scale and zero point"""
    a, b = ctx.axes(0), ctx.axes(3)
    swap_a, swap_b = int(ctx.node.attribute("transA", 0)), int(ctx.node.attribute("transB", 0))
    for index, contracted in ((0, 1 - swap_a), (3, swap_b)):
        ctx.role(index, contracted, "reads")
        ctx.role(index, 1 - contracted, "writes")
    product, zero = multiply(ctx, a[::-1] if swap_a else a, b[::-1] if swap_b else b, (0, 3))
    for table in (4, 5):
        tie_table(ctx, table, product[1])
    ctx.zero_point(3, 5, axis=1 - swap_b)
    if ctx.has(6):
        ctx.tie(ctx.axes(6)[-1], product[1])
        zero = _with_bias(ctx, 6, product, zero)
    ctx.set(product, zero=zero)


def _with_bias(ctx: Context, bias: int, product: Axes, zero: list[bool]) -> list[bool]:
    return [one and two for one, two in zip(zero, zeros_of(ctx, [bias], product, all), strict=True)]


@rule("QLinearConv")
@rule("QLinearConv", domain=MICROSOFT)
def quantized_conv(ctx: Context) -> None:
    """y[n, m, ..] = sum over c of W[m, c, ..] * x[n, c, ..] + b[m], every tensor with its scale and zero point"""
    _convolution(ctx, weight=3, tables=(4, 5), bias=8)


@rule("ConvInteger")
def conv_integer(ctx: Context) -> None:
    """y[n, m, ..] = sum over c of (W[m, c, ..] - zw[m]) * (x[n, c, ..] - zx)"""
    _convolution(ctx, weight=1, tables=(3,), bias=len(ctx.node.inputs))


def _convolution(ctx: Context, weight: int, tables: tuple[int, ...], bias: int) -> None:
    last = bool(ctx.node.attribute("channels_last", 0))
    channels = convolve(ctx, w=weight, bias=bias, channels_last=last)
    for table in tables:
        tie_table(ctx, table, channels)
    ctx.zero_point(weight, tables[-1])
    space = [ctx.pinned(s, "a spatial axis") for s in (ctx.output_shape()[1:-1] if last else ctx.output_shape()[2:])]
    batch = ctx.axes(0)[0]
    zero = ctx.is_zero(weight) and ctx.is_zero(bias)
    ctx.set([batch, *space, channels] if last else [batch, channels, *space], zero=zero)
