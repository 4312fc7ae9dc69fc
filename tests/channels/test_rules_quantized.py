"""Integer operators as onnxruntime's quantizer writes them."""

import ml_dtypes
import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from onnxprune.methods.quantization.weight_only import pack
from tests.channels.halving import attribute, halve
from tests.micro.build import Net

TOLERANCE = 0.02
"""Integers differ by one step where a rounding falls the other way."""


def step(net: Net, scale: float = 0.05, zero: int = 100) -> tuple[str, str]:
    return net.number(scale), net.constant(np.array(zero, np.uint8))


def image(net: Net, channels: int = 16) -> str:
    """Draw an image in integers with channels that may go."""
    return net.QuantizeLinear(net.Relu(net.conv(net.input("batch", 3, 8, 8), 3, channels)), *step(net))


def close(net: Net, y: str, channels: int = 16) -> Net:
    net.output(net.conv(net.DequantizeLinear(y, *step(net)), channels, 4))
    return net


def double(net: Net, kind: str) -> str:
    y = image(net)
    return net.ms(kind, y, *step(net), y, *step(net), *step(net))


@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_binary_operators(kind: str) -> None:
    net = Net()
    assert halve(close(net, double(net, kind)), tolerance=TOLERANCE).share < 0.6


@pytest.mark.parametrize("kind", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_unary_operators(kind: str) -> None:
    net = Net()
    y = net.ms(kind, image(net), *step(net), *step(net))
    assert halve(close(net, y), tolerance=TOLERANCE).share < 0.6


def test_a_bias_in_integers_is_removed_at_its_zero_point() -> None:
    net = Net()
    bias = net.constant(net.rng.integers(0, 255, size=(1, 16, 1, 1)).astype(np.uint8))
    y = net.ms("QLinearAdd", image(net), *step(net), bias, *step(net), *step(net))
    halved = halve(close(net, y), tolerance=TOLERANCE)
    assert halved.shape("QLinearAdd", 3) == [1, 8, 1, 1]


def test_parts_of_a_concat_go_by_themselves() -> None:
    net = Net()
    x = net.input("batch", 3, 8, 8)
    parts = [net.QuantizeLinear(net.Relu(net.conv(x, 3, size)), *step(net)) for size in (8, 16)]
    y = net.ms("QLinearConcat", *step(net), parts[0], *step(net), parts[1], *step(net), axis=1)
    halved = halve(close(net, y, 24), tolerance=TOLERANCE)
    assert len(halved.keep) == 2


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("kind", ["QLinearGlobalAveragePool", "QLinearAveragePool"])
def test_pools_with_channels_in_both_places(kind: str, last: int) -> None:
    net = Net()
    y = image(net)
    y = net.transpose(y, 0, 2, 3, 1) if last else y
    window = {} if "Global" in kind else {"kernel_shape": [2, 2], "strides": [2, 2]}
    y = net.ms(kind, y, *step(net), *step(net), channels_last=last, **window)
    y = net.transpose(y, 0, 3, 1, 2) if last else y
    assert halve(close(net, y), tolerance=TOLERANCE).share < 0.6


def test_a_pool_of_integers_with_channels_last() -> None:
    net = Net()
    y = net.ms("NhwcMaxPool", net.transpose(image(net), 0, 2, 3, 1), kernel_shape=[2, 2], strides=[2, 2])
    assert halve(close(net, net.transpose(y, 0, 3, 1, 2)), tolerance=TOLERANCE).share < 0.6


def test_a_convolution_with_channels_last() -> None:
    net = Net()
    weight = net.constant(net.rng.integers(-100, 100, size=(16, 16, 3, 3)).astype(np.int8))
    scales, zeros = net.vector(16, 0.0005, 0.001), net.constant(np.zeros(16, np.int8))
    bias = net.constant(net.rng.integers(-500, 500, 16).astype(np.int32))
    operands = [net.transpose(image(net), 0, 2, 3, 1), *step(net), weight, scales, zeros, *step(net), bias]
    y = net.ms("QLinearConv", *operands, channels_last=1, pads=[1] * 4)
    halved = halve(close(net, net.transpose(y, 0, 3, 1, 2)), tolerance=TOLERANCE)
    assert halved.shape("QLinearConv", 3)[:2] == [8, 8]
    assert halved.shape("QLinearConv", 4) == [8]


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_dense_layer_in_integers(transposed: int) -> None:
    net = Net()
    y = net.QuantizeLinear(net.linear(net.input("batch", 8), 8, 16), *step(net))
    shape = (24, 16) if transposed else (16, 24)
    weight = net.constant(net.rng.integers(0, 200, size=shape).astype(np.uint8))
    scales, zeros = net.vector(24, 0.002, 0.004), net.constant(np.full(24, 90, np.uint8))
    bias = net.constant(net.rng.integers(-500, 500, 24).astype(np.int32))
    operands = [y, *step(net), weight, scales, zeros, bias, *step(net)]
    y = net.ms("QGemm", *operands, transB=transposed)
    net.output(net.linear(net.DequantizeLinear(y, *step(net)), 24, 3))
    halved = halve(net, tolerance=TOLERANCE)
    assert sorted(halved.shape("QGemm", 3)) == [8, 12]


def test_a_product_of_integers_to_floats() -> None:
    net = Net()
    y, scale, zero = net.DynamicQuantizeLinear(net.linear(net.input("batch", 8), 8, 16), outputs=3)
    weight = net.constant(net.rng.integers(0, 200, size=(16, 24)).astype(np.uint8))
    tables = net.vector(24, 0.002, 0.004), net.constant(np.full(24, 90, np.uint8))
    y = net.ms("MatMulIntegerToFloat", y, weight, scale, tables[0], zero, tables[1], net.weight(24))
    net.output(net.linear(y, 24, 3))
    assert halve(net, tolerance=TOLERANCE).shape("MatMulIntegerToFloat", 1) == [8, 12]


def test_a_product_that_quantizes_its_input() -> None:
    net = Net()
    y = net.linear(net.input("batch", 8), 8, 16)
    weight = net.constant(net.rng.integers(0, 200, size=(16, 24)).astype(np.uint8))
    tables = net.vector(24, 0.002, 0.004), net.constant(np.full(24, 90, np.uint8))
    y = net.ms("DynamicQuantizeMatMul", y, weight, *tables, net.weight(24))
    net.output(net.linear(y, 24, 3))
    assert halve(net, tolerance=TOLERANCE).shape("DynamicQuantizeMatMul", 1) == [8, 12]


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_packed_weights_lose_rows_and_blocks(zero_points: bool, flat: bool) -> None:
    """64 inputs in blocks of 16; two zero points share a byte, so two blocks go together."""
    net = Net()
    y = net.linear(net.input("batch", 8), 8, 64)
    packed = net.constant(net.rng.integers(0, 255, size=(24, 4, 8)).astype(np.uint8))
    scales = net.rng.uniform(0.01, 0.03, size=(24, 4)).astype(np.float32)
    operands = [y, packed, net.constant(scales.reshape(-1) if flat else scales)]
    if zero_points:
        points = net.rng.integers(0, 255, size=(24, 2)).astype(np.uint8)
        operands.append(net.constant(points.reshape(-1) if flat else points))
    y = net.ms("MatMulNBits", *operands, K=64, N=24, bits=4, block_size=16)
    net.output(net.linear(net.Relu(y), 24, 3))
    halved = halve(net)
    node = halved.node("MatMulNBits")
    inputs = 64 if flat else 32  # rows and blocks on one axis compete, so only one of them goes
    assert [attribute(node, "N"), attribute(node, "K")] == [12, inputs]
    assert halved.shape("MatMulNBits", 1) == [12, inputs // 16, 8]


@pytest.mark.parametrize(("kind", "zeros"), [("bytes", False), ("bytes", True), ("uint4", True), ("uint4", False)])
def test_packed_rows_lose_whole_blocks_of_columns(kind: str, zeros: bool) -> None:
    net = Net(opset=21)
    ids = net.input("n", 3, name="ids", dtype=np.int64)
    codes, middle = (net.rng.integers(0, 16, (20, size)).astype(np.uint8) for size in (64, 4))
    scales = net.rng.uniform(0.1, 1, (20, 4)).astype(np.float32)
    if kind == "bytes":
        codes, middle, more = pack(codes, 4), pack(middle, 4), {"bits": 4}
    else:
        codes, middle, more = codes.astype(ml_dtypes.uint4), middle.astype(ml_dtypes.uint4), {}
    given = [codes, ids, scales, *([middle] if zeros else [])]
    y = net.ms("GatherBlockQuantized", *given, gather_axis=0, quantize_axis=1, block_size=16, **more)
    net.output(net.linear(net.Relu(y), 64, 3))
    halved = halve(net)
    assert halved.shape("GatherBlockQuantized", 0) == [20, 16 if kind == "bytes" else 32]
    assert halved.shape("GatherBlockQuantized", 2) == [20, 2]
    assert "looked up by data" in halved.reasons()


def test_blocks_that_run_over_rows_hold_them() -> None:
    net = Net()
    packed = net.rng.integers(0, 256, 32 * 16 // 2).astype(np.uint8)
    largest = net.rng.uniform(0.5, 1.5, 16).astype(np.float32)
    sizes = {"K": 32, "N": 16, "block_size": 32, "quant_type": 1}
    y = net.ms("MatMulBnb4", net.linear(net.input("n", 8), 8, 32), packed, largest, **sizes)
    net.output(net.linear(net.Relu(net.linear(y, 16, 8)), 8, 3))
    model = net.model()
    channels = analyse(Model(model))
    assert "make its weights float first" in " ".join(lock.reason for lock in channels.locks)


def test_scales_of_blocks_cut_whole_blocks() -> None:
    net = Net(opset=21)
    y = net.linear(net.input("batch", 8), 8, 32)
    values = net.constant(net.rng.integers(-100, 100, size=(32, 16)).astype(np.int8))
    scale = net.constant(net.rng.uniform(0.001, 0.003, size=(4, 16)).astype(np.float32))
    point = net.constant(net.rng.integers(-20, 20, size=(4, 16)).astype(np.int8))
    y = net.MatMul(y, net.DequantizeLinear(values, scale, point, axis=0, block_size=8))
    net.output(net.linear(net.Relu(y), 16, 3))
    halved = halve(net)
    assert halved.shape("DequantizeLinear", 0) == [16, 8]
    assert halved.shape("DequantizeLinear", 1) == [2, 8]
