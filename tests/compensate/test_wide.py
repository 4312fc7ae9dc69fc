"""A layer with more features than a Gram matrix may have is refitted in the dual form, with the same result."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from onnxprune.compensate import lstsq, wide
from onnxprune.compensate.problem import LstsqOptions, Problem
from onnxprune.compensate.ridge import Moments, ridge
from onnxprune.operators.layouts import MatrixRows
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
        change, shift = wide.DualSystem(x, before, free_bias).ridge(strength)(y)
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


class PlainRows:
    """A matrix product of (rows, features), seen as blocks of one group."""

    def inputs(self, x: np.ndarray, y_shape: tuple[int, ...]) -> MatrixRows:
        return MatrixRows(x)

    def outputs(self, y: np.ndarray) -> np.ndarray:
        return y[None]


def few_rows(clamp: tuple[float, float] | None = None, *, offsets: bool, batches: int, free_bias: bool) -> Problem:
    """48 rows of 200 features, which depend on each other, so that no ridge of moments is near the plain inverse."""
    draw = np.random.default_rng(3)
    x = (draw.normal(size=(48, 20)) @ draw.normal(size=(20, 200)) + 0.1 * draw.normal(size=(48, 200))).astype(
        np.float32
    )
    y = (x @ draw.normal(0, 0.1, size=(200, 7)) + 0.2).astype(np.float32)
    added = draw.normal(size=(48, 7)).astype(np.float32)
    start = np.zeros((1, 7, 201))
    start[0, :, :-1] = draw.normal(0, 0.05, size=(7, 200))
    parts = [np.array_split(array, batches) for array in (x, y, added)]
    return Problem(
        PlainRows(),  # type: ignore[arg-type]
        lambda: iter(parts[0]),
        lambda: iter(parts[1]),
        start,
        clamp,
        free_bias,
        (lambda: iter(parts[2])) if offsets else None,
    )


@pytest.mark.parametrize("clamp", [None, (0.0, float("inf")), (-0.5, 0.5)])
@pytest.mark.parametrize(("offsets", "batches", "free_bias"), [(False, 8, True), (True, 2, True), (True, 4, False)])
def test_a_fit_on_few_rows_is_the_fit_on_moments(
    monkeypatch: pytest.MonkeyPatch,
    clamp: tuple[float, float] | None,
    offsets: bool,
    batches: int,
    free_bias: bool,
) -> None:
    problem = few_rows(clamp, offsets=offsets, batches=batches, free_bias=free_bias)
    options = LstsqOptions(strengths=(1e-3, 1e-2, 1e-1))
    with monkeypatch.context() as patch:
        patch.setattr(Moments, "zeros", lambda *_: pytest.fail("a Gram matrix was made"))
        short = lstsq.fit(problem, options)
    monkeypatch.setattr(wide, "FEW", 0)
    long = lstsq.fit(problem, options)
    assert short.used and long.used and short.level == pytest.approx(long.level, rel=1e-3)
    assert short.before == pytest.approx(long.before, rel=1e-3)
    assert short.after == pytest.approx(long.after, rel=1e-2)
    np.testing.assert_allclose(short.weights, long.weights, atol=2e-3)


def test_what_no_row_makes_better_stays_as_it_was() -> None:
    """Targets that no input tells of: every change is noise, also on held-out rows."""
    problem = few_rows(offsets=False, batches=8, free_bias=False)
    noise = np.random.default_rng(5).normal(size=(48, 7)).astype(np.float32)
    problem = replace(problem, targets=lambda: iter(np.array_split(noise, 8)), start=np.zeros_like(problem.start))
    found = lstsq.fit(problem, LstsqOptions(strengths=(1e-3, 1e-2)))
    assert not found.used and found.weights is problem.start
