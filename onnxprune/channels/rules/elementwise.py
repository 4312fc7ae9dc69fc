"""Operators that work position by position, with multidirectional broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.space import Axes

KEEPS_ZERO = [
    "Abs",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitCast",
    "Cast",
    "Ceil",
    "Celu",
    "Elu",
    "Erf",
    "Floor",
    "Gelu",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sign",
    "Sin",
    "Sinh",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trunc",
]
LOSES_ZERO = [
    "Acos",
    "Acosh",
    "Cos",
    "Cosh",
    "Exp",
    "HardSigmoid",
    "IsInf",
    "IsNaN",
    "Log",
    "Not",
    "Reciprocal",
    "Sigmoid",
    "Softplus",
    "BitwiseNot",
]


def broadcast(ctx: Context, inputs: list[int]) -> Axes:
    """y[i] = f(a[i], b[i], ..): axes are aligned from the right, positions of full axes live or die together."""
    axes = [ctx.axes(i) for i in inputs]
    rank = max(len(a) for a in axes)
    result: Axes = []
    for back in range(rank, 0, -1):
        full = [a[-back] for a in axes if len(a) >= back and len(a[-back]) > 1]
        sizes = {len(f) for f in full}
        if len(sizes) > 1:
            raise RuleError(f"{ctx.node.label}: its inputs do not broadcast as traced")
        for other in full[1:]:
            ctx.tie(full[0], other)
        stays = next((f for f in full if ctx.space.is_born_pinned(f)), None)
        result.append(stays if stays is not None else full[0] if full else ctx.state.unit)
    return result


def zeros_of(ctx: Context, inputs: list[int], result: Axes, enough: Callable[[Iterable[bool]], bool]) -> list[bool]:
    """Tell for each axis of a result whether its removed positions are zero in enough of the inputs (`all`, `any`).

    An input without the axis, or with one position that stands for all, has zeros nowhere along it.
    """
    known = [(ctx.axes(i), ctx.zeros(i)) for i in inputs]

    def along(back: int) -> bool:
        size = len(result[-back])
        return enough(len(axes) >= back and len(axes[-back]) == size and zeros[-back] for axes, zeros in known)

    return [ctx.space.is_born_pinned(result[-back]) or along(back) for back in range(len(result), 0, -1)]


@rule(*KEEPS_ZERO)
def keeps_zero(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) = 0"""
    ctx.set(ctx.axes(0), zero=ctx.zeros(0))


@rule(*LOSES_ZERO)
@rule("Binarizer", domain="ai.onnx.ml")
def loses_zero(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) != 0"""
    ctx.set(ctx.axes(0))


@rule("CastLike")
def cast_like(ctx: Context) -> None:
    """y[i] = x[i] in the type of the second input"""
    ctx.ignore(1)
    ctx.set(ctx.axes(0), zero=ctx.zeros(0))


@rule("Clip")
def clip(ctx: Context) -> None:
    """y[i] = min(max(x[i], low), high)"""
    low, high = ctx.value(1) if len(ctx.node.inputs) > 1 else None, ctx.value(2) if len(ctx.node.inputs) > 2 else None
    low = ctx.node.attribute("min", low)
    high = ctx.node.attribute("max", high)
    spans_zero = (low is None or float(np.max(low)) <= 0) and (high is None or float(np.min(high)) >= 0)
    ctx.set(ctx.axes(0), zero=ctx.zeros(0) if spans_zero else False)


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean", "BitwiseOr", "BitwiseXor", "Or", "Xor")
def additive(ctx: Context) -> None:
    """y[i] = a[i] + b[i] (also -, max, min, mean)"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    result = broadcast(ctx, inputs)
    ctx.set(result, zero=zeros_of(ctx, inputs, result, all))


@rule("Mul", "And", "BitwiseAnd")
def multiplicative(ctx: Context) -> None:
    """y[i] = a[i] * b[i]"""
    result = broadcast(ctx, [0, 1])
    ctx.set(result, zero=zeros_of(ctx, [0, 1], result, any))


@rule("SwiGLU")
def gated(ctx: Context) -> None:
    """y[i] = a[i] * sigmoid(alpha * a[i]) * b[i]"""
    multiplicative(ctx)


@rule("Div", "Mod")
def division(ctx: Context) -> None:
    """y[i] = a[i] / b[i]"""
    result = broadcast(ctx, [0, 1])
    for axis in range(len(ctx.axes(1))):
        ctx.role(1, axis, "divides")
    ctx.set(result, zero=zeros_of(ctx, [0], result, all))


@rule("Pow")
def power(ctx: Context) -> None:
    """y[i] = a[i] ** b[i]"""
    result = broadcast(ctx, [0, 1])
    exponent = ctx.value(1)
    positive = exponent is not None and bool(np.all(exponent > 0))
    ctx.set(result, zero=zeros_of(ctx, [0], result, all) if positive else False)


@rule("PRelu")
def prelu(ctx: Context) -> None:
    """y[i] = x[i] if x[i] > 0 else slope[i] * x[i]"""
    result = broadcast(ctx, [0, 1])
    ctx.set(result, zero=zeros_of(ctx, [0], result, all))


@rule("Equal")
def equal(ctx: Context) -> None:
    """y[i] = a[i] = b[i]; where numbers of positions are compared with 0, 1, .., each is compared with its own"""
    for numbers, table in ((0, 1), (1, 0)):
        value, axes = ctx.value(table), ctx.axes(table)
        if value is not None and value.ndim and np.array_equal(value.reshape(-1), np.arange(value.shape[-1])):
            ctx.counts_positions(numbers, axes[-1])
    ctx.set(broadcast(ctx, [0, 1]))


@rule("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift")
def comparison(ctx: Context) -> None:
    """y[i] = a[i] < b[i]"""
    ctx.set(broadcast(ctx, [0, 1]))


@rule("Where")
def where(ctx: Context) -> None:
    """y[i] = a[i] if c[i] else b[i]"""
    result = broadcast(ctx, [0, 1, 2])
    ctx.set(result, zero=zeros_of(ctx, [1, 2], result, all))


@rule("BiasGelu", "FastGelu", "BiasAdd", domain=MICROSOFT)
def biased(ctx: Context) -> None:
    """y[i] = f(x[i] + b[i] (+ s[i])) with f(0) = 0"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    result = broadcast(ctx, inputs)
    ctx.set(result, zero=zeros_of(ctx, inputs, result, all))


@rule("Gelu", "QuickGelu", domain=MICROSOFT)
def fused_activation(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) = 0"""
    ctx.set(ctx.axes(0), zero=ctx.zeros(0))
