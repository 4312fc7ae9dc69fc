"""The quick arithmetic of 8-bit tensors gives what the package gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization import quant_utils

from onnxprune.methods.quantization import integer, quick
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from tests import networks

RNG = np.random.default_rng(0)
CASES = {
    "normal": RNG.standard_normal(99),
    "positive": RNG.uniform(0.1, 3, 40),
    "negative": -RNG.uniform(0.1, 3, 40),
    "zeros": np.zeros(7),
    "subnormal": np.full(5, 1e-41),
    "halves": np.array([-1.27, 0.005, 0.015, 0.025, -0.035]),
    "single": np.array([2.5]),
    "empty": np.zeros(0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("reduced", [True, False])
def test_parameters_and_integers_are_those_of_the_package(name: str, kind: int, symmetric: bool, reduced: bool) -> None:
    data = CASES[name].astype(np.float32)
    wanted = quant_utils.quantize_data(data, kind, symmetric, reduced)
    original = quant_utils.quantize_nparray
    with quick.quick():
        assert quant_utils.quantize_nparray is not original
        found = quant_utils.quantize_data(data, kind, symmetric, reduced)
    assert quant_utils.quantize_nparray is original
    for one, other in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


def test_values_that_are_not_finite_are_left_to_the_package() -> None:
    data = np.array([1.0, np.inf], np.float32)
    with quick.quick(), np.errstate(all="ignore"):
        zero, scale = quant_utils.compute_data_quant_params(data, TensorProto.INT8, True)
    assert zero == 0 and not np.isfinite(scale)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_a_quantized_model_has_the_same_bytes_with_and_without(
    mode: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    source = networks.convnet()
    feeds = [{"x": RNG.standard_normal((8, 3, 12, 12)).astype(np.float32)}]
    options = QuantizeOptions(mode=mode, **({"format": form} if mode == "static" else {}))

    def made() -> onnx.ModelProto:
        return quantize(source, options, feeds=feeds, threads=1).model.proto

    fast = made()
    monkeypatch.setattr(integer, "quick", contextlib.nullcontext)
    assert made().SerializeToString(deterministic=True) == fast.SerializeToString(deterministic=True)
