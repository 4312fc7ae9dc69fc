"""Einsum: positions with one letter are one axis; letters that the result lacks are contracted."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.registry import rule
from onnxprune.types import IntArray

ELLIPSIS = "..."


@dataclass(frozen=True)
class Equation:
    """Labels of every operand and of the result, ellipses written out as digits."""

    operands: tuple[str, ...]
    result: str


def parse(equation: str, ranks: list[int]) -> Equation:
    """Read an equation; axes of an ellipsis are numbered from the right and labelled by digits.

    Raises:
        ValueError: the letters do not fit the ranks.
    """
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"'{equation}' has {len(terms)} operands, {len(ranks)} are given")
    hidden = [rank - len(term.replace(ELLIPSIS, "")) for term, rank in zip(terms, ranks, strict=True)]
    widest = max([h for term, h in zip(terms, hidden, strict=True) if ELLIPSIS in term], default=0)
    if widest > 9 or any(h < 0 or (h > 0 and ELLIPSIS not in t) for t, h in zip(terms, hidden, strict=True)):
        raise ValueError(f"'{equation}' does not fit operands of {ranks} axes")
    digits = "".join(str(n) for n in reversed(range(widest)))
    operands = tuple(
        t.replace(ELLIPSIS, digits[len(digits) - h :] if h else "") for t, h in zip(terms, hidden, strict=True)
    )
    if arrow:
        return Equation(operands, right.replace(ELLIPSIS, digits))
    letters = "".join(operands)
    once = sorted(c for c in set(letters) if letters.count(c) == 1 and not c.isdigit())
    return Equation(operands, digits + "".join(once))


@rule("Einsum")
def einsum(ctx: Context) -> None:
    """y[result letters] = sum over the other letters of the product of the operands"""
    inputs = range(len(ctx.node.inputs))
    try:
        found = parse(str(ctx.node.attribute("equation", "")), [len(ctx.axes(i)) for i in inputs])
    except ValueError as error:
        raise RuleError(f"{ctx.node.label}: {error}") from error
    axes: dict[str, IntArray] = {}
    for index, labels in zip(inputs, found.operands, strict=True):
        for label, ids in zip(labels, ctx.axes(index), strict=True):
            if len(ids) == 1:
                axes.setdefault(label, ids)
            elif len(axes.get(label, ids)) == 1:
                axes[label] = ids
            else:
                ctx.tie(axes.setdefault(label, ids), ids)
    for label, ids in axes.items():
        if label not in found.result:
            ctx.summed(ids, any(_is_zero(ctx, found, i, label) for i in _full(ctx, found, label)))
    _roles(ctx, found)
    _note_attention(ctx, found, axes)
    zero = [
        ctx.space.is_born_pinned(axes[label]) or any(_is_zero(ctx, found, i, label) for i in _full(ctx, found, label))
        for label in found.result
    ]
    ctx.set([axes[label] for label in found.result], zero=zero)


def _full(ctx: Context, found: Equation, label: str) -> list[int]:
    """Operands that have an axis of this letter and do not broadcast it."""
    return [
        index
        for index, labels in enumerate(found.operands)
        if label in labels and len(ctx.axes(index)[labels.index(label)]) > 1
    ]


def _is_zero(ctx: Context, found: Equation, index: int, label: str) -> bool:
    zeros = zip(found.operands[index], ctx.zeros(index), strict=True)
    return all(zero for other, zero in zeros if other == label)


def _roles(ctx: Context, found: Equation) -> None:
    for index, labels in enumerate(found.operands):
        for axis, label in enumerate(labels):
            if label not in found.result:
                ctx.role(index, axis, "reads")
            else:
                elsewhere = any(label in other for number, other in enumerate(found.operands) if number != index)
                ctx.role(index, axis, "scales" if elsewhere else "writes")


def _note_attention(ctx: Context, found: Equation, axes: dict[str, IntArray]) -> None:
    """A product of two activations over a shared letter, apart for each head: the last letter that all three have."""
    if len(found.operands) != 2 or any(ctx.is_parameter(i) for i in (0, 1)):
        return
    one, two = found.operands
    heads = [c for c in one if c in two and c in found.result]
    contracted = [c for c in one if c in two and c not in found.result]
    if heads and len(contracted) == 1 and len(found.result) >= 3:
        ctx.state.attentions.append((axes[heads[-1]], axes[contracted[0]]))
