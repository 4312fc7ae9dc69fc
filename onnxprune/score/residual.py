"""The least-squares residual: what the readers of a channel lose when the channels that stay make up for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxprune.score.activity import GRAM_SHARE, Activity
from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices
from onnxprune.score.magnitude import l2
from onnxprune.score.readings import Reading
from onnxprune.score.removal import Correlated, Diagonal, RemovalState, inverse, removal_errors
from onnxprune.statistics.moments import ChannelStatistics
from onnxprune.types import FloatArray, IntArray

DAMPING = 1e-3
"""Added to the covariance, relative to its mean diagonal: dead channels leave it singular."""
MATRICES = 5
"""Matrices of doubles at one time: a covariance, its inverse, the metric, and products on their way."""
KEPT_SHARE = 0.125
"""Share of the memory for inverses that other groups need again."""

Counting = Callable[[Activity, Reading], FloatArray | None]
"""(elements,): what the square of an error of each output of a weight counts; None: its share of what it gives."""


@criterion("lstsq", comparable=True, needs_data=True, needs_products=True)
def lstsq(slices: Slices) -> FloatArray:
    """Error of all readers when the channel goes and the rest is refitted: s[c] = ||W~[:, c]||^2 / [S^-1][c, c].

    S is the covariance of what a weight reads, W~ the weight that already makes up for the channels before; each weight
    counts relative to the variance of what it gives, once, however many nodes share it. The channel that costs least
    goes first, S^-1 and W~ are downdated, and so on; a channel's score is the error of its group once it is gone, with
    all that went before. Where S does not fit into the memory, it is the diagonal of variances.
    Source: Hassibi and Stork 1993, Optimal Brain Surgeon, equation 5; per channel as in Kurtic et al. 2023, ZipLM.
    """
    return residuals(slices, relative)


def relative(activity: Activity, reading: Reading) -> FloatArray | None:
    """Return (elements,) what an error of each output of a weight counts: None, its share of what the weight gives."""
    return None


def residuals(slices: Slices, counting: Counting) -> FloatArray:
    """Return (channels,): the errors of the readers in the order of removals, each output of a weight as it counts."""
    activity = slices.activity
    found = activity.weights(slices.group) if activity else []
    if activity is None or not found:
        slices.notes.append("have no linear reader whose input could be seen, so l2 is used")
        values = l2(slices)
        return np.asarray(values / max(float(values.sum()), 1e-30))
    problems: dict[tuple[str, bytes], list[Reading]] = {}
    places: dict[tuple[str, bytes], IntArray] = {}
    for reading, positions in found:
        key = activity.pools[reading.stored], positions.tobytes()
        problems.setdefault(key, []).append(reading)
        places[key] = positions
    states = [_start(activity, readings, places[key], counting) for key, readings in problems.items()]
    return removal_errors(states, slices.group.size)


def damping(statistics: ChannelStatistics) -> float:
    """Return what is added to a covariance: few rows predict each other by chance, which says nothing of new inputs."""
    return DAMPING + len(statistics.mean) / max(statistics.count, 1)


def _start(activity: Activity, readings: Sequence[Reading], positions: IntArray, counting: Counting) -> RemovalState:
    """Return the state of weights that read the same at the same positions: their metrics add up."""
    statistics = activity.of(readings[0])
    varies = bool(np.isfinite(statistics.variance).all() and statistics.variance.sum() > 0)
    fits = 8 * MATRICES * len(statistics.mean) ** 2 <= (1 - GRAM_SHARE - KEPT_SHARE) * activity.allowed
    if not varies:
        return Diagonal(np.zeros(len(positions)))
    if statistics.gram is None or not fits:
        losses = [_alone(activity, reading, counting(activity, reading)) for reading in readings]
        return Diagonal(np.sum([loss[positions].sum(axis=1) for loss in losses], axis=0))
    covariance, cut = statistics.covariance, np.unique(positions)
    size = float(np.trace(covariance)) / len(covariance)
    if not 0 < size < np.inf:
        return Diagonal(np.zeros(len(positions)))
    covariance = covariance / size  # costs are shares; without it huge activations underflow in the inverse
    metric = np.zeros((len(cut), len(cut)))
    for reading in readings:  # one by one: matrices of doubles are large
        weight, counts = reading.matrix(activity.view), counting(activity, reading)
        product = weight @ weight.T if counts is None else (weight * counts) @ weight.T
        factor = 1 / max(float(np.vdot(covariance, product)), 1e-30) if counts is None else size
        metric += product[np.ix_(cut, cut)] * factor
    known = _inverse(activity, activity.pools[readings[0].stored], covariance, damping(statistics))
    known = known if len(cut) == len(known) else known[np.ix_(cut, cut)]
    return Correlated(np.array(known), metric, np.searchsorted(cut, positions))


def _alone(activity: Activity, reading: Reading, counts: FloatArray | None) -> FloatArray:
    """Return (positions,): what each costs where nothing makes up for it."""
    variance, weight = activity.of(reading).variance, reading.matrix(activity.view)
    if counts is not None:
        return np.asarray(variance * np.einsum("pe,pe,e->p", weight, weight, counts))
    powers = variance * np.einsum("pe,pe->p", weight, weight)
    return np.asarray(powers / max(float(powers.sum()), 1e-30))


def _inverse(activity: Activity, pool: str, covariance: FloatArray, damp: float) -> FloatArray:
    """Return the inverse of a damped covariance, kept for the next group while there is room."""
    if pool not in activity.inverses:
        found = inverse(covariance, damp)
        if sum(kept.nbytes for kept in activity.inverses.values()) + found.nbytes > KEPT_SHARE * activity.allowed:
            return found
        activity.inverses[pool] = found
    return activity.inverses[pool]
