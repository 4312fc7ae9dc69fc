"""Where everything between writers and readers is linear, any subspace may stay: the right one costs nothing."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate.refit import Cut
from onnxprune.graph.model import Model
from tests.compensate.small import network, prune, run

RNG = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def bottleneck(*, activation: bool = False) -> Model:
    """Two branches write six channels that span three dimensions only; two layers read their sum."""
    node = helper.make_node
    basis = normal(6, 3)
    weights = {
        "w0": np.einsum("ok,kchw->ochw", basis, normal(3, 4, 1, 1)),
        "b0": normal(6),
        "w1": np.einsum("ok,kchw->ochw", basis, normal(3, 4, 3, 3)),
        "w2": normal(5, 6, 3, 3),
        "w3": normal(2, 6, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["a"]),
        node("Conv", ["x", "w1"], ["b"], pads=[1, 1, 1, 1]),
        node("Add", ["a", "b"], ["c"]),
        node("Relu" if activation else "Identity", ["c"], ["s"]),
        node("Conv", ["s", "w2"], ["p"]),
        node("Conv", ["s", "w3"], ["q"]),
        node("Flatten", ["p"], ["pf"]),
        node("Flatten", ["q"], ["qf"]),
        node("Concat", ["pf", "qf"], ["y"], axis=1),
    ]
    return network(nodes, weights, ["n", 4, 6, 6], None)


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": normal(8, 4, 6, 6)} for _ in range(8)]


def test_channels_in_a_smaller_space_are_cut_without_loss() -> None:
    model, data = bottleneck(), feeds()
    result = prune(model, {0: [0, 1, 2]}, data)
    (wanted,), (given,), (cut,) = (run(m, data) for m in (model, result.refitted, result.cut))
    assert np.abs(cut - wanted).max() > 1
    np.testing.assert_allclose(given, wanted, atol=2e-2 * np.abs(wanted).max())  # ridge and float32 moments


def test_an_activation_in_between_forbids_mixtures_but_not_the_refit() -> None:
    model, data = bottleneck(activation=True), feeds()
    result = prune(model, {0: [0, 1, 2]}, data)
    (wanted,), (given,), (cut,) = (run(m, data) for m in (model, result.refitted, result.cut))
    assert 1e-3 < np.square(given - wanted).mean() < 0.5 * np.square(cut - wanted).mean()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cut_takes_the_kept_positions_of_any_axis(axis: int) -> None:
    kept = np.array([0, 2])
    array = normal(3, 4, 5)
    cut = Cut({"t": [kept if number == axis else None for number in range(3)]}, {})
    np.testing.assert_array_equal(cut("t", array), np.take(array, kept, axis=axis))
    assert cut("other", array) is array
