"""Discrete Fourier transforms: one axis is mixed, the others pass."""

from __future__ import annotations

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule

REASON = "a transform runs along it"


@rule("DFT")
def discrete_fourier_transform(ctx: Context) -> None:
    """y[.., f, .., d] = sum over t, c of x[.., t, .., c] * wave[f, t, c, d]; c, d are real and imaginary part"""
    data, shape = list(ctx.axes(0)), ctx.output_shape()
    listed = ctx.integers("axis", 2)
    if listed is None:
        listed = [1 if ctx.node.version < 20 else -2]
    axis = listed[0] % len(data)
    if axis == len(data) - 1 or len(shape) != len(data):
        raise RuleError(f"{ctx.node.label}: {REASON}")
    for mixed in (axis, len(data) - 1):
        ctx.pin(data[mixed], REASON)
        data[mixed] = ctx.pinned(shape[mixed], REASON)
    ctx.set(data, zero=ctx.zeros(0))
