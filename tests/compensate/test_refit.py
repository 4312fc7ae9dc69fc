"""What a refit promises: mixtures of kept channels cost nothing, nothing pruned changes nothing, worse is not used."""

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from tests.compensate.small import Pruned, network, prune, run

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def mixed(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make the last channel the sum of the first two."""
    weight[-1], bias[-1] = weight[0] + weight[1], bias[0] + bias[1]
    return weight, bias


def images(count: int = 48, channels: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(8, channels, 6, 6)} for _ in range(count // 8)]


def reader(name: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Return nodes from h (batch, 6, 6, 6) to y, with weights."""
    node = helper.make_node
    if name == "conv":
        return [node("Conv", ["h", "w"], ["y"], pads=[1, 1, 1, 1])], {"w": normal(4, 6, 3, 3)}
    if name == "conv with a bias and strides":
        weights = {"w": normal(4, 6, 3, 2), "b": normal(4)}
        return [node("Conv", ["h", "w", "b"], ["y"], strides=[2, 1], pads=[1, 0, 1, 0])], weights
    if name == "transposed conv":
        return [node("ConvTranspose", ["h", "w"], ["y"], strides=[2, 2])], {"w": normal(6, 4, 2, 2)}
    if name == "batch normalisation behind":
        weights = {"w": normal(4, 6, 1, 1), "g": normal(4), "o": normal(4), "m": normal(4), "v": normal(4) ** 2 + 0.1}
        return [node("Conv", ["h", "w"], ["c"]), node("BatchNormalization", ["c", *"gomv"], ["y"])], weights
    if name == "matmul and add":
        nodes = [node("Transpose", ["h"], ["t"], perm=[0, 2, 3, 1]), node("MatMul", ["t", "w"], ["m"])]
        return [*nodes, node("Add", ["b", "m"], ["y"])], {"w": normal(6, 4), "b": normal(4)}
    if name == "matmul with the weight on the left":
        nodes = [node("Reshape", ["h", "s"], ["r"]), node("MatMul", ["w", "r"], ["y"])]
        return nodes, {"s": np.array([0, 0, -1]), "w": normal(4, 6)}
    if name == "gemm":
        nodes = [node("GlobalAveragePool", ["h"], ["p"]), node("Flatten", ["p"], ["f"])]
        gemm = node("Gemm", ["f", "w", "b"], ["y"], transB=1, alpha=2.0, beta=0.5)
        return [*nodes, gemm], {"w": normal(4, 6), "b": normal(4)}
    raise ValueError(name)


READERS = [
    "conv",
    "conv with a bias and strides",
    "transposed conv",
    "batch normalisation behind",
    "matmul and add",
    "matmul with the weight on the left",
    "gemm",
]


def two_layers(name: str) -> Model:
    nodes, weights = reader(name)
    weights["w0"], weights["b0"] = mixed(normal(6, 3, 1, 1), normal(6))
    first = helper.make_node("Conv", ["x", "w0", "b0"], ["h"])
    return network([first, *nodes], weights, ["n", 3, 6, 6], None)


@pytest.mark.parametrize("name", READERS)
def test_a_channel_that_is_a_mixture_of_the_kept_ones_costs_nothing(name: str) -> None:
    model, feeds = two_layers(name), images()
    result = prune(model, {0: [5]}, feeds)
    (wanted,), (cut,), (given,) = (run(m, feeds) for m in (model, result.cut, result.refitted))
    assert np.abs(cut - wanted).max() > 0.1
    np.testing.assert_allclose(given, wanted, atol=1e-3 * np.abs(wanted).max())  # ridge, float32 moments
    assert result.errors[-1].used
    assert result.errors[-1].after < 1e-6 < result.errors[-1].before


def depthwise_and_sum() -> Model:
    node = helper.make_node
    weights = {"w0": normal(6, 3, 1, 1), "w1": normal(6, 1, 3, 3), "w2": normal(6, 6, 1, 1), "w3": normal(4, 6, 3, 3)}
    nodes = [
        node("Conv", ["x", "w0"], ["a"], name="first"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w1"], ["c"], group=6, pads=[1, 1, 1, 1], name="depthwise"),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "w2"], ["e"], name="second"),
        node("Add", ["b", "e"], ["f"], name="sum"),
        node("Relu", ["f"], ["g"]),
        node("Conv", ["g", "w3"], ["y"], name="last"),
    ]
    return network(nodes, weights, ["n", 3, 6, 6], None)


def claimed_and_real(model: Model, result: Pruned, name: str, tensor: str, feeds: list) -> tuple[float, float]:
    """Return the relative error that the report claims for a layer and the one of the whole model."""
    claimed = next(error.after for error in result.errors if error.name == name)
    (wanted,), (given,) = run(model, feeds, tensor), run(result.refitted, feeds, tensor)
    return claimed, float(np.square(wanted - given).mean() / wanted.var((0, 2, 3)).mean())


def test_the_reported_error_is_the_error_of_the_whole_model() -> None:
    model, feeds = depthwise_and_sum(), images(96)
    result = prune(model, {0: [1, 4]}, feeds)
    claimed, real = claimed_and_real(model, result, "last", "y", feeds)
    assert real == pytest.approx(claimed, rel=0.3)  # claimed on the held-out quarter, real on everything


def test_every_ingredient_makes_the_output_better() -> None:
    model, feeds = depthwise_and_sum(), images(96)
    (wanted,) = run(model, feeds)

    def loss(mode: str) -> float:
        return float(np.square(run(prune(model, {0: [1, 4]}, feeds, mode).refitted, feeds)[0] - wanted).mean())

    assert loss("lstsq") < loss("bias") < loss("none")


@pytest.mark.parametrize("mode", ["lstsq", "bias"])
def test_nothing_pruned_changes_nothing(mode: str) -> None:
    model = depthwise_and_sum()
    result = prune(model, {}, images(), mode)
    assert result.refitted.proto.SerializeToString() == model.proto.SerializeToString()
    assert not any(error.used for error in result.errors)


@pytest.mark.parametrize("kind", ["one sample", "constant", "dead", "all equal"])
def test_poor_data_never_make_a_layer_worse_or_infinite(kind: str) -> None:
    model, feeds = depthwise_and_sum(), images(32)
    if kind == "one sample":
        feeds = [{"x": feeds[0]["x"][:1]}]
    elif kind == "constant":
        feeds = [{"x": np.ones((8, 3, 6, 6), np.float32)}] * 4
    elif kind == "dead":
        for feed in feeds:
            feed["x"][:] = 0
    else:
        feeds = [feeds[0]] * 4
    result = prune(model, {0: [1, 4]}, feeds)
    assert all(np.isfinite(error.after) and error.after <= error.before for error in result.errors)
    assert np.isfinite(run(result.refitted, feeds)[0]).all()


def test_a_bias_shared_by_two_layers_is_copied_not_changed_for_both() -> None:
    node = helper.make_node
    weights = {"w0": normal(6, 3, 1, 1), "w1": normal(6, 6, 1, 1), "w2": normal(4, 6, 1, 1), "b": normal(6)}
    nodes = [
        node("Conv", ["x", "w0", "b"], ["a"], name="p"),
        node("Identity", ["b"], ["alias"]),
        node("Conv", ["a", "w1", "alias"], ["c"], name="q"),
        node("Conv", ["c", "w2"], ["y"], name="r"),
    ]
    model, feeds = network(nodes, weights, ["n", 3, 6, 6], None), images()
    result = prune(model, {1: [0]}, feeds)
    first = result.refitted.proto.graph.node
    names = [n.input[2] for n in first if n.op_type == "Conv" and n.name in "pq"]
    assert len(set(names)) == 2
    onnx.shape_inference.infer_shapes(result.refitted.proto, strict_mode=True)


def test_half_precision_weights_stay_half_and_finite() -> None:
    weights = {"w0": normal(6, 3, 1, 1), "w1": normal(4, 6, 1, 1)}
    nodes = [helper.make_node("Conv", [a, w], [b]) for a, w, b in (("x", "w0", "h"), ("h", "w1", "y"))]
    half = {name: array.astype(np.float16) for name, array in weights.items()}
    model = network(nodes, half, ["n", 3, 6, 6], None, onnx.TensorProto.FLOAT16)
    feeds = [{"x": feed["x"].astype(np.float16)} for feed in images()]
    result = prune(model, {0: [2]}, feeds)
    (wanted,), (cut,), (given,) = (run(m, feeds) for m in (model, result.cut, result.refitted))
    assert given.dtype == np.float16
    assert np.square(given - wanted).mean() < 0.9 * np.square(cut - wanted).mean()


def test_bias_mode_matches_mean_and_variance_of_every_channel() -> None:
    model, feeds = two_layers("conv with a bias and strides"), images(96)
    result = prune(model, {0: [5]}, feeds, "bias")
    (wanted,), (given,) = run(model, feeds), run(result.refitted, feeds)
    np.testing.assert_allclose(given.mean((0, 2, 3)), wanted.mean((0, 2, 3)), atol=1e-2)
    assert result.errors[-1].used


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="--compensate magic"):
        prune(depthwise_and_sum(), {}, images(), "magic")
