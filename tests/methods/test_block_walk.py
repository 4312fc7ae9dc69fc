"""Weight-only quantization to data: each matrix on what the quantized network gives it, towards the float network."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.graph.model import load
from onnxprune.methods.quantization import block_walk, rounding, weight_only
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks
from tests.methods.test_quantize import run

ROOT = Path(__file__).parents[2]
FEATURES = 48


def inputs(rows: int, seed: int) -> Array:
    """Return rows whose features have few directions and a mean, as activations do."""
    mixed = np.random.default_rng(0).standard_normal((8, FEATURES))
    generator = np.random.default_rng(seed)
    found = generator.standard_normal((rows, 8)) @ mixed + 0.3 * generator.standard_normal((rows, FEATURES)) + 0.5
    return found.astype(np.float32)


def chain(kind: str = "plain") -> onnx.ModelProto:
    """Three products with Relu between them and a sum around the second; its siblings differ in what is shared."""
    size = FEATURES
    tensors = networks.weights(w1=(size, size), b1=(size,), w2=(size, size), b2=(size,), w3=(size, 40))
    second = {"one matrix": "w1"}.get(kind, "w2")
    bias = {"one bias": "b1"}.get(kind, "b2")
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["p1"], "first"),
        helper.make_node("Add", ["p1", "b1"], ["a1"], "first bias"),
        helper.make_node("Relu", ["a1"], ["r1"], "relu"),
        helper.make_node("MatMul", ["r1", second], ["p2"], "second"),
        helper.make_node("Add", ["p2", bias], ["a2"], "second bias"),
        helper.make_node("Add", ["a2", "x"], ["s"], "sum"),
        helper.make_node("MatMul", ["s", "w3"], ["y"], "third"),
    ]
    if kind == "no bias":
        nodes = [node for node in nodes if node.name != "second bias"]
        nodes[-2].input[0] = "p2"
    if kind == "gemm":
        nodes[:2] = [helper.make_node("Gemm", ["x", "w1", "b1"], ["a1"], "first")]
    used = {name for node in nodes for name in node.input}
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", size), ("y", 40))]
    return networks.model(nodes, ports[:1], ports[1:], [t for t in tensors if t.name in used])


def far(proto: onnx.ModelProto, found: onnx.ModelProto, feed: dict[str, Array]) -> float:
    return float(np.square(run(found, feed) - run(proto, feed)).mean())


def made(source: Any, feeds: list[dict[str, Array]], **options: Any) -> onnx.ModelProto:
    return quantize(source, QuantizeOptions(mode="weight-only", **options), feeds=feeds, threads=1).model.proto


FEEDS = [{"x": inputs(64, seed)} for seed in range(1, 9)]
UNSEEN = {"x": inputs(400, 99)}


@pytest.mark.parametrize("kind", ["plain", "one matrix", "one bias", "no bias", "gemm"])
def test_on_samples_that_were_not_seen_it_is_nearer_than_other_roundings(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = chain(kind)
    nearest = far(source, made(source, FEEDS, rounding="nearest"), UNSEEN)
    walked = far(source, made(source, FEEDS), UNSEEN)

    def refused(*_: object) -> None:
        raise ModelError("no part runs")

    monkeypatch.setattr(block_walk, "walked", refused)
    alone = quantize(source, QuantizeOptions(mode="weight-only"), feeds=FEEDS, threads=1)
    assert any("no part runs" in warning for warning in alone.warnings)
    one_by_one = far(source, alone.model.proto, UNSEEN)
    assert walked < 0.9 * one_by_one < one_by_one < nearest


@pytest.mark.parametrize("seed", [3, 7, 11])
@pytest.mark.parametrize("weak", [1e-1, 1e-2, 1e-4])
def test_directions_that_hardly_vary_make_no_output_worse(seed: int, weak: float) -> None:
    """A refit that makes up for little there by large weights has wide steps once it is rounded."""
    generator = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(generator.standard_normal((FEATURES, FEATURES)))
    spread = np.where(np.arange(FEATURES) < FEATURES // 2, 1.0, weak)
    tensors = {"w1": left * spread @ right, "w2": generator.standard_normal((FEATURES, 64))}
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"], "a"), helper.make_node("MatMul", ["h", "w2"], ["y"], "b")]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", FEATURES), ("y", 64))]
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    source = networks.model(nodes, ports[:1], ports[1:], stored)
    feeds = [{"x": generator.standard_normal((64, FEATURES)).astype(np.float32)} for _ in range(9)]
    nearest = far(source, made(source, feeds[:8], rounding="nearest"), feeds[8])
    assert far(source, made(source, feeds[:8]), feeds[8]) < nearest


@pytest.mark.parametrize(("network", "share"), [("fm_vit", 0.2), ("fm_rnn", 0.2)])
def test_trained_networks_are_much_nearer_on_images_that_were_not_seen(network: str, share: float) -> None:
    source = load(ROOT / "models" / "trained" / network / "model.onnx")
    with np.load(ROOT / "models" / "data" / "fmnist_calib.npz") as arrays:
        images = arrays["input"].astype(np.float32)
    key, shape = source.proto.graph.input[0].name, source.proto.graph.input[0].type.tensor_type.shape.dim
    images = images if len(shape) == 4 else images[:, 0]
    feeds = [{key: images[i : i + 32]} for i in range(0, 128, 32)]
    errors = [
        far(source.proto, made(source, feeds, rounding=how, block_size=64), {key: images[256:]})
        for how in ("gptq", "nearest")
    ]
    assert errors[0] < share * errors[1]


def test_a_refit_leaves_the_error_of_what_is_rounded_and_a_constant() -> None:
    """|| W X - Q X~ ||^2 = || (W' - Q) X~ ||^2 + what no Q changes, for W' = W + W (X - X~) X~^T (X~ X~^T)^-1."""
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((5, 300)), generator.standard_normal((3, 5))
    seen = x + 0.3 * generator.standard_normal((5, 300))
    gram = seen @ seen.T
    refitted = w + w @ (x - seen) @ seen.T @ np.linalg.inv(gram)
    rest = [
        np.square(w @ x - q @ seen).sum() - np.square((refitted - q) @ seen).sum()
        for q in generator.standard_normal((20, 3, 5))
    ]
    assert np.allclose(rest, rest[0])


def test_a_small_layer_is_nearly_as_good_as_the_best_of_all_codes() -> None:
    """The second product has three inputs of 4 bits: all 4096 codes of each of its outputs are tried."""
    tensors = networks.weights(w1=(FEATURES, 3), w2=(3, 6))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", FEATURES), ("y", 6))]
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"], "a"), helper.make_node("MatMul", ["h", "w2"], ["y"], "b")]
    source = networks.model(nodes, ports[:1], ports[1:], tensors)
    found = block_walk.walked(source, {"a", "b"}, {}, FEEDS, block_walk.BlockGrid(4, 16))
    x = np.concatenate([feed["x"] for feed in FEEDS])
    w1, w2 = (numpy_helper.to_array(tensor) for tensor in tensors)
    seen = x @ block_walk.meant(found["a"].blocks, FEATURES).T
    wanted = x @ w1 @ w2
    _, scales, zeros = found["b"].blocks
    codes = np.array(list(itertools.product(range(16), repeat=3)), np.float32)
    best = np.array(
        [
            np.square(seen @ ((codes - zeros[out]) * scales[out]).T - wanted[:, out : out + 1]).sum(0).min()
            for out in range(6)
        ]
    )
    error = np.square(seen @ block_walk.meant(found["b"].blocks, 3).T - wanted).sum(0)
    symmetric = weight_only.round_blocks(w2, 4, 16)
    assert error.sum() < 1.3 * best.sum()
    assert error.sum() < np.square(seen @ block_walk.meant(symmetric, 3).T - wanted).sum()


def test_the_same_data_give_the_same_bytes() -> None:
    one, two = (made(chain(), FEEDS).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two


def test_layers_that_stay_float_keep_weights_and_biases() -> None:
    source = chain()
    proto = made(source, FEEDS, skip=("second",))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    assert (stored["w2"] == before["w2"]).all() and (stored["b2"] == before["b2"]).all()
    assert not (stored["b1"] == before["b1"]).all() and "w1" not in stored


def test_data_without_numbers_round_to_nearest() -> None:
    matrix = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    for one, two in zip(
        rounding.round_with_gram(matrix, np.full((40, 40), np.nan), 4, 32),
        weight_only.round_blocks(matrix, 4, 32),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
