"""Operators that work position by position, with multidirectional broadcasting."""

from __future__ import annotations

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


def covers(ctx: Context, index: int, result: Axes) -> bool:
    """Tell whether input `index` has every axis of the result that may change, so that its zeros reach everywhere."""
    axes = ctx.axes(index)
    for back in range(1, len(result) + 1):
        if ctx.space.is_born_pinned(result[-back]):
            continue
        if len(axes) < back or len(axes[-back]) != len(result[-back]):
            return False
    return True


def is_zero_everywhere(ctx: Context, index: int, result: Axes) -> bool:
    """Tell whether removed positions of the result are zero in this input."""
    return ctx.is_zero(index) and covers(ctx, index, result)


@rule(*KEEPS_ZERO)
def keeps_zero(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) = 0"""
    ctx.set(ctx.axes(0), zero=ctx.is_zero(0))


@rule(*LOSES_ZERO)
@rule("Binarizer", domain="ai.onnx.ml")
def loses_zero(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) != 0"""
    ctx.set(ctx.axes(0))


@rule("CastLike")
def cast_like(ctx: Context) -> None:
    """y[i] = x[i] in the type of the second input"""
    ctx.ignore(1)
    ctx.set(ctx.axes(0), zero=ctx.is_zero(0))


@rule("Clip")
def clip(ctx: Context) -> None:
    """y[i] = min(max(x[i], low), high)"""
    low, high = ctx.value(1) if len(ctx.node.inputs) > 1 else None, ctx.value(2) if len(ctx.node.inputs) > 2 else None
    low = ctx.node.attribute("min", low)
    high = ctx.node.attribute("max", high)
    spans_zero = (low is None or float(np.max(low)) <= 0) and (high is None or float(np.min(high)) >= 0)
    ctx.set(ctx.axes(0), zero=spans_zero and ctx.is_zero(0))


@rule("Add", "Sub", "Sum", "Max", "Min", "Mean", "BitwiseOr", "BitwiseXor", "Or", "Xor")
def additive(ctx: Context) -> None:
    """y[i] = a[i] + b[i] (also -, max, min, mean)"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    result = broadcast(ctx, inputs)
    ctx.set(result, zero=all(is_zero_everywhere(ctx, i, result) for i in inputs))


@rule("Mul", "And", "BitwiseAnd")
def multiplicative(ctx: Context) -> None:
    """y[i] = a[i] * b[i]"""
    result = broadcast(ctx, [0, 1])
    ctx.set(result, zero=any(is_zero_everywhere(ctx, i, result) for i in (0, 1)))


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
    ctx.set(result, zero=is_zero_everywhere(ctx, 0, result))


@rule("Pow")
def power(ctx: Context) -> None:
    """y[i] = a[i] ** b[i]"""
    result = broadcast(ctx, [0, 1])
    exponent = ctx.value(1)
    positive = exponent is not None and bool(np.all(exponent > 0))
    ctx.set(result, zero=positive and is_zero_everywhere(ctx, 0, result))


@rule("PRelu")
def prelu(ctx: Context) -> None:
    """y[i] = x[i] if x[i] > 0 else slope[i] * x[i]"""
    result = broadcast(ctx, [0, 1])
    ctx.set(result, zero=is_zero_everywhere(ctx, 0, result))


@rule("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift")
def comparison(ctx: Context) -> None:
    """y[i] = a[i] < b[i]"""
    ctx.set(broadcast(ctx, [0, 1]))


@rule("Where")
def where(ctx: Context) -> None:
    """y[i] = a[i] if c[i] else b[i]"""
    result = broadcast(ctx, [0, 1, 2])
    ctx.set(result, zero=all(is_zero_everywhere(ctx, i, result) for i in (1, 2)))


@rule("BiasGelu", "FastGelu", "BiasAdd", domain=MICROSOFT)
def biased(ctx: Context) -> None:
    """y[i] = f(x[i] + b[i] (+ s[i])) with f(0) = 0"""
    inputs = [i for i in range(len(ctx.node.inputs)) if ctx.has(i)]
    result = broadcast(ctx, inputs)
    ctx.set(result, zero=all(is_zero_everywhere(ctx, i, result) for i in inputs))


@rule("Gelu", "QuickGelu", domain=MICROSOFT)
def fused_activation(ctx: Context) -> None:
    """y[i] = f(x[i]) with f(0) = 0"""
    ctx.set(ctx.axes(0), zero=ctx.is_zero(0))
