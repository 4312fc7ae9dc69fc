"""Channels removed one after the other cost what they cost where everything is computed anew."""

import numpy as np
import pytest

from onnxprune.score import removal
from onnxprune.score.removal import Correlated, inverse, removal_errors


def drawn(positions: int, outs: int = 5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(2)
    x = draw.normal(size=(3 * positions, positions)) @ (np.eye(positions) + 0.3 * draw.normal(size=(positions,) * 2))
    weight = draw.normal(size=(positions, outs))
    return x.T @ x / len(x), weight


def error_without(covariance: np.ndarray, weight: np.ndarray, gone: np.ndarray) -> float:
    """Return the least squared error of the readers once positions are gone and the others make up for them."""
    kept = np.setdiff1d(np.arange(len(weight)), gone)
    rest = covariance[np.ix_(gone, gone)]
    if len(kept):
        mixed = covariance[np.ix_(kept, gone)]
        rest = rest - mixed.T @ np.linalg.solve(covariance[np.ix_(kept, kept)], mixed)
    return float(np.trace(weight[gone].T @ rest @ weight[gone]))


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("panel", [1, 5, 1000])
def test_costs_are_those_of_fits_from_the_start(monkeypatch: pytest.MonkeyPatch, width: int, panel: int) -> None:
    monkeypatch.setattr(removal, "PANEL", panel)
    covariance, weight = drawn(24)
    positions = np.random.default_rng(4).permutation(24).reshape(-1, width)
    state = Correlated(inverse(covariance, 0.0), weight @ weight.T, positions)
    left, total, gone = np.ones(len(positions), bool), 0.0, np.zeros(0, np.int64)
    while left.any():
        costs = np.where(left, state.costs(left), np.inf)
        chosen = int(np.argmin(costs))
        gone = np.append(gone, positions[chosen])
        total += costs[chosen]
        assert total == pytest.approx(error_without(covariance, weight, gone), rel=1e-6)
        left[chosen] = False
        state.remove(np.array([chosen]))


@pytest.mark.parametrize("size", [40, 300])
def test_removals_that_wait_give_the_same_scores(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    covariance, weight = drawn(size)
    found = []
    for panel in (1, 48, 100_000):
        monkeypatch.setattr(removal, "PANEL", panel)
        state = Correlated(inverse(covariance, 1e-3), weight @ weight.T, np.arange(size)[:, None])
        found.append(removal_errors([state], size))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-8)
