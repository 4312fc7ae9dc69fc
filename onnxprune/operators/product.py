"""Matrix products: stored as they are, turned, fused, packed, of integers."""

from __future__ import annotations

from math import prod

from onnxprune.operators.call import Attributes, Call, Shape
from onnxprune.operators.fused import einsum_parts, gemm_parts, matmul_parts
from onnxprune.operators.layouts import Dense, Layout
from onnxprune.operators.operator import MICROSOFT, Contraction, Operator, Packed, describe
from onnxprune.operators.shapes import general_product, packed_product, product


def _macs(call: Call) -> int:
    """y[.., i, j] = sum over k of a[.., i, k] * b[.., k, j]."""
    a = call.input(0)
    return prod(call.output) * (a[-1] if a else 1)


def _contracts(attributes: Attributes) -> tuple[Contraction, ...]:
    return (
        Contraction(0, -1, 1, reads=-2, writes=-1, output_axis=-1),
        Contraction(1, -2, 0, reads=-1, writes=-2, output_axis=-2),
    )


def _layout(attributes: Attributes, dims: Shape, weight: int) -> Layout | None:
    if len(dims) != 2:
        return None
    return Dense() if weight == 1 else Dense(transposed=True, input_axis=-2, output_axis=-2)


def _gemm_macs(call: Call) -> int:
    """y[i, j] = sum over k of a[i, k] * b[k, j]."""
    return prod(call.output) * call.input(0)[0 if call.attribute("transA", 0) else -1]


def _gemm_contracts(attributes: Attributes) -> tuple[Contraction, ...]:
    left, right = int(attributes.get("transA", 0)), int(attributes.get("transB", 0))
    return (
        Contraction(0, 1 - left, 1, reads=right, writes=1 - right, output_axis=1),
        Contraction(1, right, 0, reads=1 - left, writes=left, output_axis=0),
    )


def _gemm_layout(attributes: Attributes, dims: Shape, weight: int) -> Layout | None:
    scale = float(attributes.get("alpha", 1.0))
    if len(dims) != 2 or weight != 1 or not scale:
        return None
    axis = 0 if attributes.get("transA") else 1
    return Dense(bool(attributes.get("transB")), axis, 1, scale)


def _fused_macs(call: Call) -> int:
    """As MatMul; transA moves k to the axis before the last, transBatchA further to the front."""
    a = call.input(0)
    if not call.attribute("transA", 0):
        return prod(call.output) * a[-1]
    return prod(call.output) * a[0 if call.attribute("transBatchA", 0) else -2]


def _einsum_macs(call: Call) -> int:
    """One multiplication for every operand after the first, over the product of all index sizes."""
    equation = str(call.attribute("equation", "")).replace(" ", "")
    sizes: dict[str, int] = {}
    terms = equation.split("->")[0].split(",")
    for index, term in enumerate(terms):
        shape = call.input(index)
        letters, dots, tail = term.partition("...")
        sizes.update(zip(letters, shape, strict=False))
        sizes.update(zip(reversed(tail), reversed(shape), strict=False))
        hidden = shape[len(letters) : len(shape) - len(tail)] if dots else ()
        for place, size in enumerate(reversed(hidden)):
            sizes[f"...{place}"] = max(size, sizes.get(f"...{place}", 1))
    return prod(sizes.values()) * (len(terms) - 1)


def _experts_macs(call: Call) -> int:
    """Every token goes through `k` experts, each of two or three matrices."""
    return _through_experts(call, (2, 4, 6), 1)


def _packed_experts_macs(call: Call) -> int:
    """The same with several numbers in a byte."""
    return _through_experts(call, (2, 5, 8), 8 // int(call.attribute("expert_weight_bits", 4)))


def _through_experts(call: Call, weights: tuple[int, ...], packed: int) -> int:
    each = sum(prod(shape[1:]) for index in weights if (shape := call.optional(index)) is not None)
    return prod(call.input(0)[:-1]) * int(call.attribute("k", 1)) * each * packed


describe(
    (
        Operator(
            "MatMul",
            macs=_macs,
            way="product",
            contracts=_contracts,
            layout=_layout,
            learned=(0, 1),
            quantized=True,
            static=True,
            dynamic=(1,),
        ),
        Operator(
            "Gemm",
            macs=_gemm_macs,
            way="product",
            contracts=_gemm_contracts,
            layout=_gemm_layout,
            bias=2,
            factor="beta",
            learned=(1, 2),
            quantized=True,
            static=True,
        ),
        Operator("FusedGemm", MICROSOFT, macs=_gemm_macs, shapes=general_product, way="product", parts=gemm_parts),
        Operator("FusedMatMul", MICROSOFT, macs=_fused_macs, shapes=product, way="product", parts=matmul_parts),
        Operator("Einsum", macs=_einsum_macs, way="einsum", parts=einsum_parts),
        Operator("QGemm", MICROSOFT, macs=_gemm_macs, shapes=general_product),
        Operator("MoE", MICROSOFT, macs=_experts_macs),
        Operator("QMoE", MICROSOFT, macs=_packed_experts_macs),
        Operator("MatMulInteger", macs=_macs, packed=Packed(1, None, 3, -1)),
        Operator("QLinearMatMul", macs=_macs, packed=Packed(3, 4, 5, -1)),
    )
)
describe(
    Operator(op_type, MICROSOFT, macs=_fused_macs, shapes=product)
    for op_type in ("TransposeMatMul", "FusedMatMulActivation")
)
describe(
    Operator(op_type, MICROSOFT, macs=_macs, shapes=product)
    for op_type in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
)
describe(
    Operator(op_type, MICROSOFT, macs=_macs, shapes=packed_product)
    for op_type in ("MatMulNBits", "MatMulBnb4", "MatMulFpQ4")
)
