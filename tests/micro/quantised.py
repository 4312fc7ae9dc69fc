"""Quantized graphs: QDQ per tensor and per axis, integer operators."""

import numpy as np
from onnx import TensorProto

from tests.micro.build import Net, case


def stored(net: Net, *shape: int, axis: int = 0, point: int = 0, per_axis: bool = True, kind=np.int8) -> str:
    """Add a weight stored as integers, behind DequantizeLinear."""
    info = np.iinfo(kind)
    values = net.constant(net.rng.integers(max(info.min, -100), min(info.max, 200), size=shape).astype(kind))
    scale = np.full(shape[axis], 0.6 / 60 / np.sqrt(np.prod(shape[1:])), np.float32) * net.rng.uniform(
        0.5, 1.5, shape[axis]
    )
    scale = scale.astype(np.float32)
    zero = np.full(shape[axis], point, kind) if per_axis else np.array(point, kind)
    more = {"axis": axis} if per_axis else {}
    return net.DequantizeLinear(values, net.constant(scale if per_axis else scale[0]), net.constant(zero), **more)


def fake(net: Net, x: str, scale: float = 0.05, point: int = 100) -> str:
    """Draw QuantizeLinear -> DequantizeLinear of an activation."""
    constants = net.number(scale), net.constant(np.array(point, np.uint8))
    return net.DequantizeLinear(net.QuantizeLinear(x, *constants), *constants)


@case(share=0.4, tolerance=0.02)
@case("opset21", share=0.4, opset=21, tolerance=0.02)
def qdq_conv_per_axis(net):
    """Weights int8 with one scale per output channel, activations uint8."""
    y = fake(net, net.input("batch", 3, 6, 6))
    for inner, outer in ((3, 16), (16, 16), (16, 4)):
        bias = net.DequantizeLinear(
            net.constant(net.rng.integers(-50, 50, outer).astype(np.int32)),
            net.constant(np.full(outer, 0.002, np.float32)), axis=0,
        )  # fmt: skip
        y = fake(net, net.Relu(net.Conv(y, stored(net, outer, inner, 3, 3), bias, pads=[1] * 4)))
    net.output(y)


@case(share=0.35, tolerance=0.02)
def qdq_per_tensor_with_zero_point(net):
    """The neutral integer is the zero point, not 0."""
    y = fake(net, net.input("batch", 8))
    for inner, outer in ((8, 32), (32, 32), (32, 4)):
        y = fake(
            net,
            net.Gemm(
                y, stored(net, outer, inner, point=90, per_axis=False, kind=np.uint8), net.weight(outer), transB=1
            ),
        )
    net.output(y)


@case(share=0.4)
def weight_only_per_axis(net):
    """MatMul weights in int8 along axis 1, activations float."""
    y = net.input("batch", 8)
    for inner, outer in ((8, 32), (32, 32), (32, 4)):
        y = net.Relu(net.Add(net.MatMul(y, stored(net, inner, outer, axis=1, point=5)), net.weight(outer)))
    net.output(y)


@case(share=0.35, opset=21)
def weight_only_blocked(net):
    """Blocked int4-style scales (block_size 8) tie eight rows together or lock them; never break."""
    y = net.linear(net.input("batch", 8), 8, 32)
    values = net.constant(net.rng.integers(-100, 100, size=(32, 16)).astype(np.int8))
    scale = net.constant(net.rng.uniform(0.001, 0.003, size=(4, 16)).astype(np.float32))
    y = net.Relu(net.MatMul(y, net.DequantizeLinear(values, scale, axis=0, block_size=8)))
    net.output(net.linear(net.Relu(net.linear(y, 16, 32)), 32, 4))


@case(share=0.55)
def activation_quantized_per_axis(net):
    """A per-channel scale on an activation."""
    y = net.conv(net.input("batch", 3, 6, 6), 3, 16)
    scale, zero = net.vector(16, 0.01, 0.05), net.constant(np.full(16, 128, np.uint8))
    y = net.DequantizeLinear(net.QuantizeLinear(y, scale, zero, axis=1), scale, zero, axis=1)
    net.output(net.conv(y, 16, 4))


@case(share=0.35, tolerance=0.02)
def dynamic_quantization(net):
    """onnxruntime's quantize_dynamic: DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul."""
    y = net.input("batch", 8)
    for inner, outer in ((8, 32), (32, 32), (32, 4)):
        q, scale, zero = net.DynamicQuantizeLinear(y, outputs=3)
        weight = net.constant(net.rng.integers(-100, 100, size=(inner, outer)).astype(np.int8))
        y = net.Cast(net.MatMulInteger(q, weight, zero, net.constant(np.array(0, np.int8))), to=TensorProto.FLOAT)
        y = net.Add(net.Mul(y, net.Mul(scale, net.number(0.002))), net.weight(outer))
        y = net.Relu(y)
    net.output(y)


@case(share=0.35, tolerance=0.02)
def conv_integer(net):
    y = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 16))
    q, scale, zero = net.DynamicQuantizeLinear(y, outputs=3)
    weight = net.constant(net.rng.integers(0, 200, size=(16, 16, 3, 3)).astype(np.uint8))
    y = net.ConvInteger(q, weight, zero, net.constant(np.array(100, np.uint8)), pads=[1] * 4)
    y = net.Mul(net.Cast(y, to=TensorProto.FLOAT), net.Mul(scale, net.number(0.002)))
    net.output(net.conv(net.Relu(net.conv(net.Relu(y), 16, 16)), 16, 4))


@case(share=0.35, tolerance=0.02)
def qlinear_conv(net):
    """QOperator format: weights, scales and zero points are inputs of one node."""
    scale, zero = net.number(0.05), net.constant(np.array(100, np.uint8))
    y = net.QuantizeLinear(net.input("batch", 3, 6, 6), scale, zero)
    for inner, outer in ((3, 16), (16, 16), (16, 4)):
        weight = net.constant(net.rng.integers(-100, 100, size=(outer, inner, 3, 3)).astype(np.int8))
        scales = net.vector(outer, 0.0005, 0.001)
        bias = net.constant(net.rng.integers(-500, 500, outer).astype(np.int32))
        zeros = net.constant(np.zeros(outer, np.int8))
        y = net.QLinearConv(y, scale, zero, weight, scales, zeros, scale, zero, bias, pads=[1] * 4)
    net.output(net.DequantizeLinear(y, scale, zero))


@case(share=0.35, tolerance=0.02)
def qlinear_matmul(net):
    scale, zero = net.number(0.05), net.constant(np.array(100, np.uint8))
    y = net.QuantizeLinear(net.input("batch", 8), scale, zero)
    for inner, outer in ((8, 32), (32, 32), (32, 4)):
        weight = net.constant(net.rng.integers(-100, 100, size=(inner, outer)).astype(np.int8))
        y = net.QLinearMatMul(
            y, scale, zero, weight, net.number(0.003), net.constant(np.array(0, np.int8)), scale, zero
        )
    net.output(net.DequantizeLinear(y, scale, zero))
