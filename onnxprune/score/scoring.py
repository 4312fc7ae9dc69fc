"""Scores of all groups by one criterion."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

from onnxprune.channels.groups import ChannelGroup
from onnxprune.errors import UsageError
from onnxprune.graph.view import View
from onnxprune.score.activity import Activity
from onnxprune.score.criteria import find
from onnxprune.score.criterion import Criterion
from onnxprune.score.group_slices import SlicedWeights, Slices, over_mean
from onnxprune.types import FloatArray

Scores = dict[str, FloatArray]
"""Group name -> (channels,) scores, higher matters more."""


def score_groups(
    view: View,
    groups: Iterable[ChannelGroup],
    name: str = "l2",
    seed: int = 0,
    activity: Activity | None = None,
    randomize: float | None = None,
) -> tuple[Scores, list[str]]:
    """Score the channels of every group.

    A group is reduced over all its writers as the criterion says, then divided by its mean, so that one threshold
    compares groups (criteria that are comparable by themselves are not divided). A channel whose score is not a number
    counts as the most important one.

    Args:
        view: the model.
        groups: what to score.
        name: a criterion of `names()`.
        seed: of the criteria that draw.
        activity: what the model does on data, if there are data.
        randomize: see `randomized`; None leaves the scores alone.

    Returns:
        The scores, and what a criterion had to do otherwise than asked.

    Raises:
        UsageError: there is no such criterion, or it needs data and there are none.
    """
    criterion = find(name)
    if criterion.needs_data and activity is None:
        raise UsageError(f"--score {name} looks at what the model does on its inputs: give --data.")
    groups = list(groups)
    if activity is not None:
        activity.expect(groups, products=criterion.needs_products)
    weights = SlicedWeights(view)
    scores: Scores = {}
    notes: Counter[str] = Counter()
    for group in groups:
        generator = np.random.default_rng([seed, zlib.crc32(group.name.encode())])
        slices = Slices(group, weights, generator, activity=activity)
        scores[group.name] = _score(criterion, slices)
        if randomize is not None:
            chance = np.random.default_rng([seed, zlib.crc32(group.name.encode()), 1])
            scores[group.name] = randomized(scores[group.name], randomize, chance)
        notes.update(slices.notes)
    return scores, [f"score {name}: {count} of {len(scores)} groups {note}" for note, count in notes.items()]


def randomized(scores: FloatArray, sigma: float, chance: np.random.Generator) -> FloatArray:
    """Return s[c] exp(sigma z[c]) with normal z: a choice that the weights alone do not tell, near to the best one.

    Scores span orders of magnitude, so each moves by a share of itself; what is infinite stays.

    Source: choosing among random masks instead of the one of the sorted scores follows Li et al. 2023, Breaking through
    Deterministic Barriers: Randomized Pruning Mask Generation and Selection; the lognormal factor is ours.
    """
    return np.asarray(scores * np.exp(sigma * chance.standard_normal(len(scores))))


def _score(criterion: Criterion, slices: Slices) -> FloatArray:
    if not slices.sites:
        return np.ones(slices.group.size)
    scores = np.asarray(criterion.function(slices), dtype=np.float64)
    scores = np.nan_to_num(scores, nan=np.inf, posinf=np.inf)
    if criterion.comparable:
        return scores
    return over_mean(scores)
