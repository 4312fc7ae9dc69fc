"""Matrix products: the shared axis is contracted, the others pass."""

from __future__ import annotations

from onnxprune.channels.context import Context
from onnxprune.channels.registry import MICROSOFT, rule
from onnxprune.channels.rules.elementwise import zeros_of
from onnxprune.channels.space import Axes
from onnxprune.types import IntArray


def multiply(ctx: Context, a: Axes, b: Axes, inputs: tuple[int, int] = (0, 1)) -> tuple[Axes, list[bool]]:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]

    Args:
        a: ids of the left operand as it is multiplied (after a transposition).
        b: ids of the right operand.
        inputs: their input numbers.

    Returns:
        ids of the product, and for each of its axes whether removed positions are zero.
    """
    row: Axes = [a[-2]] if len(a) > 1 else []
    column: Axes = [b[-1]] if len(b) > 1 else []
    inner = b[-2] if len(b) > 1 else b[0]
    ctx.tie(a[-1], inner)
    one, two = inputs
    ctx.summed(a[-1], ctx.is_zero_along(one, a[-1]) or ctx.is_zero_along(two, inner))
    batch, zero = _batch(ctx, a[:-2], b[:-2], inputs)
    zero += [ctx.space.is_born_pinned(ids) or ctx.is_zero_along(one, ids) for ids in row]
    zero += [ctx.space.is_born_pinned(ids) or ctx.is_zero_along(two, ids) for ids in column]
    return [*batch, *row, *column], zero


def _batch(ctx: Context, a: Axes, b: Axes, inputs: tuple[int, int]) -> tuple[Axes, list[bool]]:
    """Broadcast the leading axes of two operands."""
    result: Axes = []
    zero: list[bool] = []
    for back in range(max(len(a), len(b)), 0, -1):
        left = a[-back] if len(a) >= back and len(a[-back]) > 1 else None
        right = b[-back] if len(b) >= back and len(b[-back]) > 1 else None
        if left is not None and right is not None:
            ctx.tie(left, right)
        ids = left if left is not None else right
        result.append(ids if ids is not None else ctx.state.unit)
        pairs = zip(inputs, (left, right), strict=True)
        reached = any(own is not None and ctx.is_zero_along(index, own) for index, own in pairs)
        zero.append(ids is None or ctx.space.is_born_pinned(ids) or reached)
    return result, zero


def note_attention(ctx: Context, product: Axes, contracted: IntArray, inputs: tuple[int, int] = (0, 1)) -> None:
    """Remember the head and head-position axes of a product of two activations."""
    if len(product) >= 3 and not any(ctx.is_parameter(i) for i in inputs):
        ctx.state.attentions += [(product[-3], contracted), (product[-3], product[-1])]


@rule("MatMul")
def matmul(ctx: Context) -> None:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]"""
    a, b = ctx.axes(0), ctx.axes(1)
    operand_roles(ctx, 0, 1)
    product, zero = multiply(ctx, a, b)
    note_attention(ctx, product, a[-1])
    ctx.set(product, zero=zero)


def operand_roles(ctx: Context, left: int, right: int) -> None:
    """Roles of the operands of a plain product."""
    a, b = ctx.axes(left), ctx.axes(right)
    _roles(ctx, left, contracted=len(a) - 1, written=len(a) - 2)
    _roles(ctx, right, contracted=max(len(b) - 2, 0), written=len(b) - 1 if len(b) > 1 else -1)


def _roles(ctx: Context, index: int, contracted: int, written: int) -> None:
    ctx.role(index, contracted, "reads")
    if written >= 0:
        ctx.role(index, written, "writes")


@rule("Gemm")
def gemm(ctx: Context) -> None:
    """y[i, j] = sum over k of a[i, k] * b[k, j] + c[i, j]"""
    general_product(ctx)


@rule("FusedGemm", domain=MICROSOFT)
def fused_gemm(ctx: Context) -> None:
    """y[i, j] = f(sum over k of a[i, k] * b[k, j] + c[i, j])"""
    general_product(ctx, keeps_zero=ctx.node.attribute("activation", "Relu") in ("Relu", "LeakyRelu", "Tanh"))


def general_product(ctx: Context, keeps_zero: bool = True) -> None:
    """Shared by Gemm and its fused form."""
    a, b = ctx.axes(0), ctx.axes(1)
    swap_a, swap_b = int(ctx.node.attribute("transA", 0)), int(ctx.node.attribute("transB", 0))
    _roles(ctx, 0, contracted=1 - swap_a, written=swap_a)
    _roles(ctx, 1, contracted=swap_b, written=1 - swap_b)
    product, zero = multiply(ctx, a[::-1] if swap_a else a, b[::-1] if swap_b else b)
    if ctx.has(2):
        added = ctx.axes(2)
        for back in range(1, len(added) + 1):
            if len(added[-back]) > 1:
                ctx.tie(added[-back], product[-back])
        both = zeros_of(ctx, [2], product, all)
        zero = [one and two for one, two in zip(zero, both, strict=True)]
    ctx.set(product, zero=zero if keeps_zero else False)


@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(ctx: Context) -> None:
    """y[.., i, j] = alpha * sum over k of a[.., i, k] * b[.., k, j] with either operand transposed"""
    a, b = list(ctx.axes(0)), list(ctx.axes(1))
    if ctx.node.attribute("transBatchA", 0) or ctx.node.attribute("transBatchB", 0):
        for index in (0, 1):
            ctx.pin_input(index, "a product with transposed batch axes")
        ctx.set([ctx.pinned(s, "a product with transposed batch axes") for s in ctx.output_shape()])
        return
    swap_a, swap_b = bool(ctx.node.attribute("transA", 0)), bool(ctx.node.attribute("transB", 0))
    _roles(ctx, 0, contracted=len(a) - (2 if swap_a else 1), written=len(a) - (1 if swap_a else 2))
    _roles(ctx, 1, contracted=len(b) - (1 if swap_b else 2), written=len(b) - (2 if swap_b else 1))
    if swap_a:
        a[-1], a[-2] = a[-2], a[-1]
    if swap_b:
        b[-1], b[-2] = b[-2], b[-1]
    product, zero = multiply(ctx, a, b)
    note_attention(ctx, product, a[-1])
    ctx.set(product, zero=zero)
