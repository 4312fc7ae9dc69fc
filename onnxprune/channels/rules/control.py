"""Control flow: both branches of an If must agree; bodies of loops stay closed."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import rule


@rule("If")
def if_(ctx: Context) -> None:
    """y = then or else; positions of both live or die together"""
    taken = _taken(ctx)
    for output in range(len(ctx.node.outputs)):
        results = [branch[output] for branch in ctx.node.branches]
        shapes = [ctx.state.trace.shapes.get(key) for key in results]
        if taken is not None and shapes[taken] is not None and len({len(s) for s in shapes if s is not None}) > 1:
            results = [results[taken]]
        _join(ctx, output, results)


def _taken(ctx: Context) -> int | None:
    """The branch that shape arithmetic chooses whatever the dynamic sizes; one of another rank is then dead."""
    condition = ctx.value(0)
    names = [a.name for a in ctx.node.proto.attribute if a.name in ("then_branch", "else_branch")]
    if condition is None or len(names) != len(ctx.node.branches):
        return None
    return names.index("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")


def _join(ctx: Context, output: int, results: list[str]) -> None:
    axes = [ctx.axes_of(key) for key in results]
    known = [a for a in axes if a is not None]
    if len(known) == len(axes) and len({tuple(len(ids) for ids in a) for a in known}) == 1:
        for other in known[1:]:
            for one, two in zip(known[0], other, strict=True):
                ctx.tie(one, two)
        ctx.set(known[0], output=output, zero=all(ctx.is_zero_key(key) for key in results))
        return
    for branch in known:
        for ids in branch:
            ctx.pin(ids, "its branches have different shapes")
    ctx.set([ctx.pinned(s, "its branches have different shapes") for s in ctx.output_shape(output)], output=output)
