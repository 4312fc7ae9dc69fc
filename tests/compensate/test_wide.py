"""A layer with more features than a Gram matrix may have is refitted in the dual form, with the same result."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate import wide
from onnxprune.compensate.ridge import Moments, ridge
from tests.compensate.small import network, prune, run

RNG = np.random.default_rng(19)


@pytest.mark.parametrize("free_bias", [True, False])
def test_the_dual_ridge_is_the_ridge(free_bias: bool) -> None:
    x, y = (RNG.normal(1, 1, size=(60, n)).astype(np.float32) for n in (9, 3))
    start = RNG.normal(size=(1, 3, 10))
    start[:, :, -1] = 0
    moments = Moments.zeros(1, 9, 3)
    moments.add(np.concatenate([x, np.ones((60, 1), np.float32)], axis=1)[None], y[None])
    for strength in (1e-3, 1.0):
        expected = ridge(moments, start, strength, free_bias=free_bias)[0]
        before = start[0, :, :-1].T.astype(np.float32)
        ((change, shift),) = wide.dual_ridge(wide.RowsAtHand(x, y), before, (strength,), free_bias=free_bias)
        np.testing.assert_allclose((before + change).T, expected[:, :-1], atol=1e-4)
        np.testing.assert_allclose(shift, expected[:, -1], atol=1e-4)


def test_a_wide_reader_is_refitted_without_its_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "FEATURES", 20)
    monkeypatch.setattr(Moments, "zeros", lambda *_: pytest.fail("a Gram matrix was made"))
    w0 = RNG.normal(size=(6, 3, 1, 1)).astype(np.float32)
    w0[5] = w0[0] + w0[1]
    weights = {"w0": w0, "w1": RNG.normal(size=(6 * 16, 4)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "w1"], ["y"]),
    ]
    model = network(nodes, weights, ["n", 3, 4, 4], None)
    feeds = [{"x": RNG.normal(size=(32, 3, 4, 4)).astype(np.float32)} for _ in range(8)]
    result = prune(model, {0: [5]}, feeds)
    (wanted,), (cut,), (given,) = (run(m, feeds) for m in (model, result.cut, result.refitted))
    assert np.square(given - wanted).mean() < 1e-4 * np.square(cut - wanted).mean()
