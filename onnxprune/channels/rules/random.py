"""Operators that draw random numbers of the shape of their input."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule


@rule("RandomNormalLike", "RandomUniformLike", "Bernoulli")
def drawn_like(ctx: Context) -> None:
    """y[i] is drawn, for every i by itself"""
    _refuse_seed(ctx)
    ctx.set(ctx.axes(0))


@rule("Dropout")
def dropout(ctx: Context) -> None:
    """y[i] = x[i]; mask[i] = true (in training: y[i] = x[i] mask[i] / (1 - ratio), mask[i] is drawn)"""
    ratio, training = ctx.value(1), ctx.value(2)
    if ctx.has(2) and (training is None or training.any()) and (ratio is None or ratio.any()):
        _refuse_seed(ctx)
    ctx.set(ctx.axes(0), zero=ctx.is_zero(0))
    ctx.set(ctx.axes(0), output=1)


def _refuse_seed(ctx: Context) -> None:
    """From a seed the same numbers are drawn one after the other: with fewer positions each would get another one."""
    if ctx.node.attribute("seed") is not None:
        raise RuleError(f"{ctx.node.label}: its positions get the numbers that follow from a seed")
