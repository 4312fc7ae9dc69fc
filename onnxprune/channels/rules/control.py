"""Control flow: both branches of an If must agree; bodies of loops stay closed."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import rule


@rule("If")
def if_(ctx: Context) -> None:
    """y = then or else; positions of both live or die together"""
    for output in range(len(ctx.node.outputs)):
        branches = [ctx.axes_of(branch[output]) for branch in ctx.node.branches]
        shapes = {tuple(len(ids) for ids in axes) for axes in branches if axes is not None}
        known = [axes for axes in branches if axes is not None]
        if len(shapes) == 1 and len(known) == len(branches):
            for other in known[1:]:
                for a, b in zip(known[0], other, strict=True):
                    ctx.tie(a, b)
            ctx.set(known[0], output=output, zero=all(ctx.is_zero_key(b[output]) for b in ctx.node.branches))
            continue
        for axes in known:
            for ids in axes:
                ctx.pin(ids, "its branches have different shapes")
        ctx.set([ctx.pinned(s, "its branches have different shapes") for s in ctx.output_shape(output)], output=output)
