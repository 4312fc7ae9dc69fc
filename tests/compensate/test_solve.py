"""The ridge on moments is the least-squares solution that numpy finds on the rows themselves."""

import numpy as np
import pytest

from onnxprune.compensate.problem import visible
from onnxprune.compensate.ridge import Moments, System, bias_only, matched, ridge

RNG = np.random.default_rng(5)


def problem(rows: int = 400, features: int = 7, outs: int = 3, groups: int = 2):
    x = RNG.normal(1, 1, size=(groups, rows, features)).astype(np.float32)
    y = (x @ RNG.normal(size=(groups, features, outs)) + 0.3 * RNG.normal(size=(groups, rows, outs)) + 2).astype(
        np.float32
    )
    moments = Moments.zeros(groups, features, outs)
    moments.add(with_one(x[:, :150]), y[:, :150])
    moments.add(with_one(x[:, 150:]), y[:, 150:])
    return x, y, moments


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((*x.shape[:2], 1), np.float32)], axis=2)


def test_moments_of_blocks_are_those_of_all_rows() -> None:
    x, y, moments = problem()
    ones = np.concatenate([x, np.ones((*x.shape[:2], 1))], axis=2).astype(np.float64)
    np.testing.assert_allclose(moments.gram, ones.transpose(0, 2, 1) @ ones, rtol=1e-5)
    np.testing.assert_allclose(moments.cross, ones.transpose(0, 2, 1) @ y, rtol=1e-4)
    weights = RNG.normal(size=(2, 3, 8))
    expected = np.square(ones @ weights.transpose(0, 2, 1) - y).sum() / x.shape[1]
    assert moments.error(weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("free_bias", [True, False])
def test_a_weak_ridge_is_least_squares(free_bias: bool) -> None:
    x, y, moments = problem()
    given = ridge(moments, np.zeros((2, 3, 8)), 1e-9, free_bias=free_bias)
    for group in range(2):
        rows = np.concatenate([x[group], np.full((400, 1), float(free_bias))], axis=1)
        expected = np.linalg.lstsq(rows.astype(np.float64), y[group].astype(np.float64), rcond=None)[0].T
        np.testing.assert_allclose(given[group], expected, atol=2e-4)


def test_a_strong_ridge_stays_at_the_start_but_for_the_bias() -> None:
    _, _, moments = problem()
    start = RNG.normal(size=(2, 3, 8))
    np.testing.assert_allclose(ridge(moments, start, 1e9)[:, :, :-1], start[:, :, :-1], atol=1e-6)
    np.testing.assert_allclose(ridge(moments, start, 1e9)[:, :, -1], bias_only(moments, start)[:, :, -1], atol=1e-5)


def test_equal_and_dead_features_give_finite_weights() -> None:
    x, y, _ = problem()
    x[:, :, 1], x[:, :, 2] = x[:, :, 0], 0
    moments = Moments.zeros(2, 7, 3)
    moments.add(with_one(x), y)
    weights = ridge(moments, np.zeros((2, 3, 8)), 1e-5)
    assert np.isfinite(weights).all()
    assert moments.error(weights) < moments.error(np.zeros((2, 3, 8)))


def test_matching_gives_the_mean_and_variance_of_the_targets() -> None:
    x, y, moments = problem()
    weights = matched(moments, RNG.normal(size=(2, 3, 8)))
    given = np.concatenate([x, np.ones((2, 400, 1))], axis=2) @ weights.transpose(0, 2, 1)
    np.testing.assert_allclose(given.mean(1), y.mean(1), atol=1e-3)
    np.testing.assert_allclose(given.std(1), y.std(1), rtol=1e-2)


def test_what_a_clamp_hides_is_no_error() -> None:
    targets = np.array([-1, -1, 0.5, 7, 7], np.float32)
    given = np.array([-3, 2, 0.1, 9, 3], np.float32)
    np.testing.assert_array_equal(visible(targets, given, 0, 6), np.array([-3, 0, 0.5, 9, 6], np.float32))


def test_strengths_of_an_indefinite_covariance_share_one_eigendecomposition(monkeypatch) -> None:
    _, _, moments = problem(groups=1)
    moments.gram[0, 0, 0] = moments.gram[0, 0, -1] ** 2 / moments.count - 50  # as rounding would, but plainly
    calls, real = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: calls.append(1) or real(matrix))
    system = System(moments, RNG.normal(size=(1, 3, 8)))
    shared = [system.ridge(strength).solve(moments.cross) for strength in (1e-6, 1e-5)]
    assert len(calls) == 1
    alone = [ridge(moments, system.start, strength) for strength in (1e-6, 1e-5)]
    np.testing.assert_array_equal(shared, alone)
