"""Which layers are replaced, and at which rank: the least error for what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from onnxprune.errors import NothingToPruneError
from onnxprune.methods.factors.replaceable import Candidate, Option

Choice = dict[str, Option]
"""Layer name -> how it is written; layers that stay are missing."""


def by_energy(candidates: Sequence[Candidate], energy: float) -> Choice:
    """Return for every layer the cheapest option that keeps the share of what it gives, where one saves something."""
    choice = {}
    for item in candidates:
        good = [o for o in item.options if o.error <= 1 - energy]
        if good:
            choice[item.layer.name] = min(good, key=lambda o: (o.params, o.error))
    return choice


def by_cost(candidates: Sequence[Candidate], measure: str, total: int, share: float) -> Choice:
    """Return options with which the whole model costs at most its share, greedily by error for each thing saved.

    Only steps on the lower hull of every layer's (cost, error) are taken, so errors for savings grow along the way.

    Args:
        measure: "params" or "macs".
        total: cost of the whole model.

    Raises:
        NothingToPruneError: the share cannot be reached.
    """
    steps = []
    for item in candidates:
        options = [o for o in item.options if getattr(o, measure) < getattr(item.base, measure)]
        hull = _hull(item.base, options, measure)
        for before, after in pairwise(hull):
            saved = getattr(before, measure) - getattr(after, measure)
            steps.append(((after.error - before.error) / saved, item.layer.name, after, saved))
    steps.sort(key=lambda step: (step[0], step[1]))
    choice: Choice = {}
    cost = total
    for _, name, option, saved in steps:
        if cost <= share * total:
            return choice
        choice[name] = option
        cost -= saved
    if cost <= share * total:
        return choice
    what = {"params": "parameters", "macs": "multiply-adds"}[measure]
    raise NothingToPruneError(
        f"{share:.0%} of the {what} cannot be reached by low rank: the layers that it can replace leave at least "
        f"{cost / total:.1%}; ask for more, or prune channels first."
    )


def _hull(base: Option, options: Sequence[Option], measure: str) -> list[Option]:
    """Lower convex hull from the layer as it is down to its cheapest option."""
    points = sorted(options, key=lambda o: (-getattr(o, measure), o.error))
    hull = [base]
    for point in points:
        if getattr(point, measure) >= getattr(hull[-1], measure):
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1], measure) >= _slope(hull[-1], point, measure):
            hull.pop()
        hull.append(point)
    return hull


def _slope(before: Option, after: Option, measure: str) -> float:
    return (after.error - before.error) / max(1, int(getattr(before, measure) - getattr(after, measure)))
