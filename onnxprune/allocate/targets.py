"""Search for the level of pruning that meets a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, permutations
from math import inf

from onnxprune.allocate.counts import Counts, counts_at
from onnxprune.allocate.masks import best_channels
from onnxprune.allocate.measures import Measure
from onnxprune.allocate.request import Request
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.errors import NothingToPruneError

TOLERANCE = 0.02
"""Relative distance from the target that still counts as met."""
CLOSE_ENOUGH = 0.002
"""Relative distance at which the search ends early."""
HALVINGS = 20
STEP_TRIALS = 200
ROUNDS = 3


@dataclass(eq=False)
class _CountSearch:
    """Measures counts, each only once."""

    request: Request
    measure: Measure
    goal: float
    shares: dict[tuple[int, ...], float] = field(default_factory=dict)

    def share(self, counts: Counts) -> float:
        """Return what is left, as a share of the original."""
        key = tuple(counts[group.name] for group in self.request.groups)
        if key not in self.shares:
            self.shares[key] = self.measure(best_channels(self.request.groups, self.request.scores, counts))
        return self.shares[key]

    def distance(self, counts: Counts) -> float:
        """Return how far counts are from the goal, relative to it."""
        return abs(self.share(counts) / self.goal - 1.0)


def meet(request: Request, measure: Measure, goal: float, name: str) -> Keep:
    """Return the masks whose share left is nearest to `goal`.

    The level is halved towards the goal; then groups move one by one from the last choice above it to the first one
    below; then single aligned steps, largest groups first, close what is left, and where the steps of few wide groups
    are too coarse for that, steps of two groups against each other.

    Args:
        request: groups, scores and limits.
        measure: masks -> share left.
        goal: share to be left, in (0, 1].
        name: of the target, for the message.

    Raises:
        NothingToPruneError: even the strongest pruning that is allowed leaves more than the goal.
    """
    search = _CountSearch(request, measure, goal)
    above, below = counts_at(request, 0.0), counts_at(request, 1.0)
    least = search.share(below)
    if least > goal * (1 + TOLERANCE):
        raise NothingToPruneError(
            f"--{name} {goal:g} cannot be reached: with everything removed that may be, {least:.3f} is left. "
            f"Ask for more than that, or allow more (--align 1, --min-channels 1, fewer --skip, not --exact-only)."
        )
    above, below = _halve(search, above, below)
    best = _between(search, above, below)
    if search.distance(best) > CLOSE_ENOUGH:
        best = _single_steps(search, best)
    for _ in range(ROUNDS):
        if search.distance(best) > TOLERANCE:
            best = _single_steps(search, _pairs_of_steps(search, best))
    return best_channels(request.groups, request.scores, best)


def nearest(
    request: Request,
    measure: Measure,
    goal: float,
    counts: Counts,
    error: Callable[[str, int], float],
    dearest: float = inf,
) -> Counts:
    """Return counts near the given ones whose share left is nearer to `goal`: always by the step that costs least.

    Args:
        error: group name and count -> error of the group.
        dearest: error per share of the model that a step may cost once the goal is met roughly.
    """
    search = _CountSearch(request, measure, goal)
    while search.distance(counts) > CLOSE_ENOUGH and len(search.shares) < STEP_TRIALS:
        steps = list(_nearer(search, counts, error))
        price, step = min(steps, key=lambda priced: priced[0], default=(inf, counts))
        if step is counts or (price > dearest and search.distance(counts) <= TOLERANCE):
            break
        counts = step
    return counts


def _nearer(search: _CountSearch, counts: Counts, error: Callable[[str, int], float]) -> Iterator[tuple[float, Counts]]:
    """Yield single steps that bring the goal nearer, each with its error per share of the model."""
    now = search.share(counts)
    for group in search.request.groups:
        name = group.name
        step = None if name in search.request.ratios else _one_step(search, group, counts, less=now > search.goal)
        if step is not None and search.distance(step) < search.distance(counts):
            yield (error(name, step[name]) - error(name, counts[name])) / abs(search.share(step) - now), step


def _halve(search: _CountSearch, above: Counts, below: Counts) -> tuple[Counts, Counts]:
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        counts = counts_at(search.request, middle)
        if counts in (above, below):
            low, high = (middle, high) if counts == above else (low, middle)
            continue
        if search.share(counts) > search.goal:
            low, above = middle, counts
        else:
            high, below = middle, counts
        if search.distance(counts) < CLOSE_ENOUGH:
            break
    return above, below


def _between(search: _CountSearch, above: Counts, below: Counts) -> Counts:
    """Move a growing number of groups from one choice to the other and return the nearest mixture."""
    differing = [g.name for g in search.request.groups if above[g.name] != below[g.name]]
    low, high = 0, len(differing)
    while high - low > 1:
        middle = (low + high) // 2
        if search.share(_mixture(above, below, differing[:middle])) > search.goal:
            low = middle
        else:
            high = middle
    ends = (_mixture(above, below, differing[:low]), _mixture(above, below, differing[:high]))
    return min(ends, key=search.distance)


def _mixture(above: Counts, below: Counts, moved: list[str]) -> Counts:
    return above | {name: below[name] for name in moved}


def _single_steps(search: _CountSearch, best: Counts) -> Counts:
    """Take single steps of single groups as long as one brings the goal nearer."""
    trials = 0
    for group in sorted(search.request.groups, key=lambda g: -g.size):
        if group.name in search.request.ratios:
            continue
        changed = _one_step(search, group, best, less=search.share(best) > search.goal)
        trials += 1
        if changed is not None and search.distance(changed) < search.distance(best):
            best = changed
        if search.distance(best) < CLOSE_ENOUGH or trials >= STEP_TRIALS:
            break
    return best


def _pairs_of_steps(search: _CountSearch, best: Counts) -> Counts:
    """Try every pair of groups, one a step up and the other one down, until the goal is met."""
    free = sorted((g for g in search.request.groups if g.name not in search.request.ratios), key=lambda g: -g.size)
    start = best
    for one, other in islice(permutations(free, 2), STEP_TRIALS):
        down = _one_step(search, one, start, less=True)
        both = _one_step(search, other, down, less=False) if down is not None else None
        if both is not None and search.distance(both) < search.distance(best):
            best = both
        if search.distance(best) < TOLERANCE / 2:
            break
    return best


def _one_step(search: _CountSearch, group: ChannelGroup, counts: Counts, less: bool) -> Counts | None:
    step, least = search.request.step(group), search.request.least(group)
    kept = counts[group.name]
    changed = (-(-kept // step) - 1) * step if less else min((kept // step + 1) * step, group.size)
    return counts | {group.name: changed} if least <= changed != kept else None
