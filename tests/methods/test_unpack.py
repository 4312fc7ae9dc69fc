"""Packed weights made float again: the same function, which can be pruned, refitted and packed anew."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import Run
from onnxprune.errors import NothingToPruneError
from onnxprune.methods.quantization.weight_only import pack, round_blocks
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from tests import decoders
from tests.micro.build import Net
from tests.oracle import random_inputs, run

INNER, OUTER, ROWS, BLOCK = 80, 24, 30, 32


def many_bits(bits: int, zeros: str = "packed", bias: bool = False) -> Callable[[Net], None]:
    def draw(net: Net) -> None:
        x = net.input("n", INNER)
        codes, scales, middle = round_blocks(net._dense(INNER, OUTER), bits, BLOCK)
        stored = [pack(codes, bits), scales.reshape(-1)]
        if zeros != "none":
            stored.append(pack(middle, bits) if zeros == "packed" else middle.astype(np.float32))
        more = [None] * (5 - 1 - len(stored)) + [net.weight(OUTER)] if bias else []
        y = net.ms("MatMulNBits", x, *stored, *more, K=INNER, N=OUTER, bits=bits, block_size=BLOCK)
        net.output(net.Relu(y))

    return draw


def four_bits(kind: int) -> Callable[[Net], None]:
    def draw(net: Net) -> None:
        packed = net.rng.integers(0, 256, INNER * OUTER // 2).astype(np.uint8)
        largest = net.rng.uniform(0.5, 1.5, INNER * OUTER // BLOCK).astype(np.float32)
        x = net.input("n", INNER)
        net.output(net.ms("MatMulBnb4", x, packed, largest, K=INNER, N=OUTER, block_size=BLOCK, quant_type=kind))

    return draw


def table(kind: str, zeros: bool) -> Callable[[Net], None]:
    def draw(net: Net) -> None:
        ids = net.input("n", 3, name="ids", dtype=np.int64)
        codes = net.rng.integers(0, 16, (ROWS, 64)).astype(np.uint8)
        middle = net.rng.integers(0, 16, (ROWS, 2)).astype(np.uint8)
        scales = net.rng.uniform(0.1, 1, (ROWS, 2)).astype(np.float32)
        more = {}
        if kind == "bytes":
            codes, middle, more = pack(codes, 4), pack(middle, 4), {"bits": 4}
        else:
            codes, middle = codes.astype(ml_dtypes.uint4), middle.astype(ml_dtypes.uint4)
        given = [codes, ids, scales, *([middle] if zeros else [])]
        y = net.ms("GatherBlockQuantized", *given, gather_axis=0, quantize_axis=1, block_size=32, **more)
        net.output(net.linear(y, 64, 5))

    return draw


def dequantized(shape: tuple[int, ...], **more: int) -> Callable[[Net], None]:
    def draw(net: Net) -> None:
        x = net.input("n", 64)
        codes = net.rng.integers(-127, 127, (64, OUTER)).astype(np.int8)
        scales = net.rng.uniform(0.01, 0.02, shape).astype(np.float32)
        zeros = net.rng.integers(-5, 5, shape).astype(np.int8)
        net.output(net.MatMul(x, net.DequantizeLinear(codes, scales, zeros, **more)))

    return draw


FORMS = {
    "4 bits": many_bits(4),
    "4 bits around the middle": many_bits(4, "none"),
    "4 bits around numbers": many_bits(4, "numbers"),
    "8 bits": many_bits(8),
    "4 bits and a bias": many_bits(4, bias=True),
    "8 bits, a bias, no zero points": many_bits(8, "none", bias=True),
    "table of floats": four_bits(0),
    "table of normal floats": four_bits(1),
    "rows in bytes": table("bytes", True),
    "rows in bytes around the middle": table("bytes", False),
    "rows of 4 bits": table("uint4", True),
    "rows of 4 bits around zero": table("uint4", False),
    "one scale": dequantized(()),
    "a scale for each column": dequantized((OUTER,), axis=1),
    "a scale for each block": dequantized((4, OUTER), axis=0, block_size=16),
}


def drawn(draw: Callable[[Net], None]) -> onnx.ModelProto:
    net = Net(opset=21)
    draw(net)
    return net.model()


@pytest.mark.parametrize("form", FORMS)
def test_unpacked_weights_give_what_the_packed_ones_gave(form: str) -> None:
    model = drawn(FORMS[form])
    result = quantize(model, QuantizeOptions(mode="float")).model.proto
    onnx.checker.check_model(result, full_check=True)
    assert {node.op_type for node in result.graph.node} <= {"MatMul", "Add", "Relu", "Gather"}
    assert all(tensor.data_type == onnx.TensorProto.FLOAT for tensor in result.graph.initializer)
    assert not [entry for entry in result.opset_import if entry.domain]
    feeds = random_inputs(model, np.random.default_rng(1), 4)
    one, other = run(model, feeds)[0], run(result, feeds)[0]
    assert np.allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_a_model_without_packed_weights_is_refused() -> None:
    net = Net()
    net.output(net.linear(net.input("n", 8), 8, 8))
    with pytest.raises(NothingToPruneError, match="nothing is packed"):
        quantize(net.model(), QuantizeOptions(mode="float"))


def test_a_packed_decoder_gives_what_it_gave_and_can_be_packed_again() -> None:
    model = decoders.packed()
    words = np.random.default_rng(0).integers(0, decoders.WORD_ROWS, (2, 8))
    plain = onnxprune.quantize(model, mode="float", run=Run(threads=1)).model.proto
    expected = decoders.decoded(model, words)
    assert np.allclose(decoders.decoded(plain, words), expected, rtol=1e-4, atol=1e-4)
    small = onnxprune.prune(plain, ratio=0.25, align=32, exact_only=True, compensate="none", run=Run(threads=1))
    again = onnxprune.quantize(small.model.proto, mode="weight-only", run=Run(threads=1)).model.proto
    assert sum(node.op_type == "MatMulNBits" for node in again.graph.node) == 15
    assert len(again.SerializeToString()) < len(model.SerializeToString())
    found, wanted = (decoders.decoded(m, words) for m in (again, small.model.proto))
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99


def test_weights_in_another_file_are_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = drawn(many_bits(4))
    inside = quantize(model, QuantizeOptions(mode="float")).model.proto
    path = tmp_path / "model.onnx"
    onnx.save(onnx.ModelProto.FromString(model.SerializeToString()), path, save_as_external_data=True, size_threshold=0)
    outside = quantize(path, QuantizeOptions(mode="float")).model.proto
    values = [[onnx.numpy_helper.to_array(t) for t in m.graph.initializer] for m in (inside, outside)]
    assert all(np.array_equal(one, other) for one, other in zip(*values, strict=True))
