"""Convolutions, transposed ones, and those of integers."""

from __future__ import annotations

from math import prod

from onnxprune.operators.call import Attributes, Call, Shape
from onnxprune.operators.fused import conv_parts
from onnxprune.operators.layouts import Convolution, Layout
from onnxprune.operators.operator import MICROSOFT, Contraction, Operator, Packed, describe
from onnxprune.operators.patches import Window
from onnxprune.operators.shapes import convolved


def _macs(call: Call) -> int:
    """y[n, m, p] = sum over c of a group and taps k of x[n, c, p + k] * w[m, c, k]."""
    return prod(call.output) * prod(call.input(1)[1:])


def _quantized_macs(call: Call) -> int:
    """As Conv; the weight is input 3."""
    return prod(call.output) * prod(call.input(3)[1:])


def _transposed_macs(call: Call) -> int:
    """Every x[n, c, p] is multiplied by w[c, :, :]."""
    return prod(call.input(0)) * prod(call.input(1)[1:])


def _contracts(attributes: Attributes) -> tuple[Contraction, ...]:
    return (Contraction(0, 1, 1, reads=1, writes=0, output_axis=1, groups=int(attributes.get("group", 1))),)


def _transposed_contracts(attributes: Attributes) -> tuple[Contraction, ...]:
    return (Contraction(0, 1, 1, reads=0, writes=1, output_axis=1, groups=int(attributes.get("group", 1))),)


def _layout(attributes: Attributes, dims: Shape, weight: int) -> Layout | None:
    return _geometry(attributes, dims, transposed=False)


def _transposed_layout(attributes: Attributes, dims: Shape, weight: int) -> Layout | None:
    if str(attributes.get("auto_pad", "NOTSET")).startswith("SAME") or "output_shape" in attributes:
        return None
    return _geometry(attributes, dims, transposed=True)


def _geometry(attributes: Attributes, dims: Shape, transposed: bool) -> Layout | None:
    axes, kernel = len(dims) - 2, dims[2:]
    if axes < 1:
        return None
    auto_pad = str(attributes.get("auto_pad", "NOTSET"))
    pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
    strides, dilations = (tuple(attributes.get(name) or (1,) * axes) for name in ("strides", "dilations"))
    begins = (0,) * axes if auto_pad != "NOTSET" else pads[:axes]
    window = Window(kernel, strides, dilations, begins, transposed)
    return Convolution(window, int(attributes.get("group", 1)), pads, auto_pad)


describe(
    (
        Operator(
            "Conv",
            macs=_macs,
            way="convolution",
            contracts=_contracts,
            layout=_layout,
            bias=2,
            learned=(1, 2),
            quantized=True,
            static=True,
        ),
        Operator(
            "ConvTranspose",
            macs=_transposed_macs,
            way="transposed convolution",
            contracts=_transposed_contracts,
            layout=_transposed_layout,
            bias=2,
            learned=(1, 2),
            underivable=frozenset({1}),
            quantized=True,
        ),
        Operator("FusedConv", MICROSOFT, macs=_macs, shapes=convolved, way="convolution", parts=conv_parts),
        Operator("NhwcFusedConv", MICROSOFT, macs=_macs, shapes=convolved, way="convolution"),
        Operator("DeformConv", macs=_macs),
        Operator("ConvInteger", macs=_macs, packed=Packed(1, None, 3, 0)),
        Operator("QLinearConv", macs=_quantized_macs, packed=Packed(3, 4, 5, 0)),
        Operator("QLinearConv", MICROSOFT, macs=_quantized_macs, shapes=convolved, packed=Packed(3, 4, 5, 0)),
    )
)
