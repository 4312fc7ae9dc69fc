"""Criteria that look at what the readers of a channel read on data: x[c] over samples and positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.score.activity import Activity
from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import Slices
from onnxprune.score.magnitude import l2
from onnxprune.score.readings import Reading
from onnxprune.types import FloatArray


@criterion("activation", needs_data=True)
def activation(slices: Slices) -> FloatArray:
    """Mean size of the channel: s[c] = sum over readers of mean |x[c]|.

    Source: Molchanov et al. 2017, Pruning Convolutional Neural Networks for Resource Efficient Inference, section 2.2.
    """
    return _total(slices, lambda activity, reading: activity.of(reading).abs_mean)


@criterion("apoz", needs_data=True)
def apoz(slices: Slices) -> FloatArray:
    """Share of positions where the channel is not zero: s[c] = 1 - APoZ[c].

    Source: Hu et al. 2016, Network Trimming, equation 1 (average percentage of zeros).
    """
    return _total(slices, lambda activity, reading: 1.0 - activity.of(reading).zero_share)


@criterion("variance", needs_data=True)
def variance(slices: Slices) -> FloatArray:
    """Variance of the channel after its activation: s[c] = sum over readers of var x[c]; a constant one is a bias.

    Source: Berisha et al. 2025, Variance-Based Pruning, section 3.
    """
    return _total(slices, lambda activity, reading: activity.of(reading).variance)


@criterion("wanda", needs_data=True)
def wanda(slices: Slices) -> FloatArray:
    """Size of weights times size of inputs: s[c] = sum over readers of sum over o |W[o, c]| * ||x[c]||.

    Source: Sun et al. 2024, A Simple and Effective Pruning Approach for LLMs, equation 1, summed over outputs (which An
    et al. 2024 call Wanda-sp).
    """

    def value(activity: Activity, reading: Reading) -> FloatArray:
        statistics = activity.of(reading)
        norm = np.sqrt(statistics.variance + statistics.mean**2)
        return np.asarray(np.abs(reading.matrix(activity.view)).sum(axis=1) * norm)

    return _total(slices, value)


@criterion("flap", needs_data=True)
def flap(slices: Slices) -> FloatArray:
    """What a bias cannot make up for: s[c] = sum over readers of var x[c] * sum over o W[o, c]^2.

    Source: An et al. 2024, Fluctuation-based Adaptive Structured Pruning for Large Language Models, equation 5.
    """

    def value(activity: Activity, reading: Reading) -> FloatArray:
        return np.asarray(np.square(reading.matrix(activity.view)).sum(axis=1) * activity.of(reading).variance)

    return _total(slices, value)


@criterion("hrank", needs_data=True)
def hrank(slices: Slices) -> FloatArray:
    """Mean rank of the channel's map: s[c] = mean over samples of rank(x[c]); the size decides between equal ranks.

    Source: Lin et al. 2020, HRank, equation 7. A map of more than two axes is flattened to (first, rest).
    """

    def value(activity: Activity, reading: Reading) -> FloatArray:
        maps = activity.maps(reading)
        sides = int(np.sqrt(maps.shape[2])) or 1
        pictures = maps[:, :, : sides * sides].reshape(*maps.shape[:2], sides, sides)
        ranks = np.linalg.matrix_rank(pictures.astype(np.float64)).mean(axis=0) if maps.size else np.zeros(1)
        size = activity.of(reading).abs_mean
        return np.asarray(ranks + 1e-3 * size / max(float(size.max(initial=0.0)), 1e-30))

    return _total(slices, value)


@criterion("chip", needs_data=True)
def chip(slices: Slices) -> FloatArray:
    """Independence of the channel: s[c] = mean over samples of ||A||_* - ||A without row c||_*, A = (channels, map).

    Source: Sui et al. 2021, CHIP, equation 4.
    """

    def value(activity: Activity, reading: Reading) -> FloatArray:
        maps = activity.maps(reading).astype(np.float64)
        if not maps.size:
            return np.ones(len(activity.of(reading).mean))
        losses = np.zeros(maps.shape[1])
        for sample in maps[:4]:
            gram = sample @ sample.T
            whole = _nuclear(gram)
            for channel in range(len(gram)):
                rest = gram.copy()
                rest[channel] = rest[:, channel] = 0.0
                losses[channel] += whole - _nuclear(rest)
        return np.maximum(losses, 0.0)

    return _total(slices, value)


def _nuclear(gram: FloatArray) -> float:
    """Sum of the singular values of A from A A^T."""
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0)).sum())


def _total(slices: Slices, value: Callable[[Activity, Reading], FloatArray]) -> FloatArray:
    activity = slices.activity
    total = activity.total(slices.group, lambda reading: value(activity, reading)) if activity else None
    if total is None:
        slices.notes.append("have no linear reader whose input could be seen, so l2 is used")
        return l2(slices)
    return total
