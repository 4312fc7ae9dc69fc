"""Static int8 whose weights are fitted to the data on their grid."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import DataError, NothingToPruneError, UsageError
from onnxprune.graph.model import load
from onnxprune.methods.quantization import fitted, grid, guard, prepare, rounding
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks
from tests.methods.test_quantize import FEEDS, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images() -> Array:
    with np.load(ROOT / "models" / "data" / "fmnist_calib.npz") as arrays:
        return arrays["input"].astype(np.float32)


@pytest.mark.parametrize(("network", "share"), [("fm_mbv2", 0.85), ("fm_resnet20", 0.95)])
def test_on_images_that_were_not_seen_the_error_is_smaller_than_that_of_rounding_to_nearest(
    network: str, share: float, images: Array
) -> None:
    source = load(ROOT / "models" / "trained" / network / "model.onnx")
    feeds = [{"input": images[i : i + 32]} for i in range(0, 128, 32)]
    wanted = run(source.proto, {"input": images[128:]})
    errors = {}
    for name in ("nearest", "gptq"):
        made = quantize(source, QuantizeOptions(mode="static", rounding=name, guard=False), feeds=feeds, threads=1)
        assert made.settings["rounding"] == name
        errors[name] = float(np.square(run(made.model.proto, {"input": images[128:]}) - wanted).mean())
    assert errors["gptq"] < share * errors["nearest"]


def test_the_quantizer_finds_the_grid_again_on_which_the_weights_were_put() -> None:
    source = networks.convnet()
    result = quantize(source, QuantizeOptions(mode="static", rounding="gptq"), feeds=FEEDS, threads=1)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.proto.graph.initializer}
    for name, before in ((t.name, numpy_helper.to_array(t)) for t in source.graph.initializer if len(t.dims) == 4):
        codes, largest = stored[name].reshape(len(before), -1), np.abs(before.reshape(len(before), -1)).argmax(axis=1)
        top = np.abs(codes).max()
        assert codes.dtype == np.int8 and (np.abs(codes).max(axis=1) == top).all()
        assert (np.abs(codes[np.arange(len(codes)), largest]) >= top - 1).all()


def test_codes_with_white_data_are_those_of_rounding_to_nearest() -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 300))
    scale = np.abs(matrix).max(axis=1) / 127
    assert np.array_equal(grid.codes(matrix, scale, np.eye(300), 127), np.rint(matrix / scale[:, None]))


def test_codes_cost_less_on_the_data_and_keep_the_largest_weight() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((500, 20)) @ generator.standard_normal((20, 300))
    gram, matrix = inputs.T @ inputs / 500, generator.standard_normal((6, 300))
    scale = np.abs(matrix).max(axis=1) / 127
    found = grid.codes(matrix, scale, gram, 127)
    assert (np.abs(found).max(axis=1) == 127).all()

    def error(codes: Array) -> float:
        return float(np.square(inputs @ (codes * scale[:, None] - matrix).T).sum())

    assert error(found) < 0.2 * error(np.rint(matrix / scale[:, None]))


def test_the_factor_is_that_of_the_inverse() -> None:
    generator = np.random.default_rng(0)
    gram = np.cov(generator.standard_normal((40, 200)))
    upper = rounding.upper_factor(gram)
    damped = gram + rounding.DAMPING * np.diag(gram).mean() * np.eye(40)
    assert np.allclose(upper, np.triu(upper)) and np.allclose(upper.T @ upper @ damped, np.eye(40))
    indefinite = np.ones((40, 40)) - 0.02 * np.eye(40)
    assert np.isfinite(rounding.upper_factor(indefinite)).all()


def test_layers_that_stay_float_keep_their_weights() -> None:
    proto = prepare.prepare(load(networks.convnet())).proto
    before = {t.name: t.SerializeToString() for t in proto.graph.initializer}
    new = grid.Rounded(np.zeros((32, 3, 3, 3), np.float32), np.ones(32, np.float32), "b1")
    grid.put(proto, {"conv1": new}, {"conv1"})
    assert {t.name: t.SerializeToString() for t in proto.graph.initializer} == before
    grid.put(proto, {"conv1": new}, ())
    after = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert not after["w1"].any() and (after["b1"] == 1).all()


def test_inputs_that_were_made_up_are_not_fitted_to() -> None:
    result = quantize(networks.convnet(), QuantizeOptions(mode="static"), feeds=FEEDS, threads=1, synthetic=True)
    assert result.settings["rounding"] == "nearest"
    with pytest.raises(DataError, match="--rounding gptq fits weights to inputs"):
        quantize(networks.convnet(), QuantizeOptions(rounding="gptq"), feeds=FEEDS, synthetic=True)
    with pytest.raises(UsageError, match="rounding gptq is for --mode static and weight-only"):
        QuantizeOptions(mode="dynamic", rounding="gptq")


def test_a_large_model_or_one_with_few_samples_is_fitted_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LEAST_SQNR_DB", 200.0)  # rounding to nearest is not good enough
    monkeypatch.setattr(guard, "LEAST_AGREEMENT", 2.0)
    monkeypatch.setattr(guard, "LEAST_SAMPLES", 8)
    seen: list[bool] = []
    fit = fitted.fit

    def watched(*given: Any) -> fitted.Fitted:
        found = fit(*given)
        seen.append(bool(found.layers))
        return found

    monkeypatch.setattr(fitted, "fit", watched)
    for samples, small, expected in ((8, 1 << 22, True), (1000, 1 << 22, False), (8, 1000, False)):
        monkeypatch.setattr(fitted, "LEAST_SAMPLES", samples)
        monkeypatch.setattr(grid, "SMALL", small)
        seen.clear()
        with pytest.raises(NothingToPruneError, match="no layer can be quantized"):
            quantize(networks.convnet(), feeds=FEEDS, threads=1)
        assert seen == [False, expected]
    asked = QuantizeOptions(mode="static", rounding="gptq", guard=False)
    assert quantize(networks.convnet(), asked, feeds=FEEDS, threads=1).settings["rounding"] == "gptq"


def test_the_activations_of_the_copy_are_those_of_the_quantized_model(images: Array) -> None:
    """With float weights in both, only the branches that an Add reads differ."""
    source = networks.convnet()
    prepared = prepare.prepare(load(source)).proto
    made = quantize(source, QuantizeOptions(mode="static", rounding="nearest"), feeds=FEEDS, threads=1).model.proto
    copy = grid.with_rounded_activations(prepared, made)
    pairs = [node for node in copy.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.input[0] for node in pairs} >= {"x", "r1", "r2"}
    onnx.checker.check_model(copy)
    error = np.square(run(copy, FEEDS[0]) - run(made, FEEDS[0])).sum() / np.square(run(made, FEEDS[0])).sum()
    assert error < 1e-3  # what is left is the rounding of weights: 30 dB
