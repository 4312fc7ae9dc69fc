"""How much where, by what it costs: the error of every group at every width against what the width saves.

Curves are measured at a few widths of each group alone (`Probe`) and follow the scores in between. Errors of groups
add up; so the best allocation walks down the lower convex hull of every curve, always where an error buys most.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.allocate.counts import Counts
from onnxprune.allocate.curve import Curve, like, measured_curve, widths_of
from onnxprune.allocate.masks import best_channels
from onnxprune.allocate.measures import Measure
from onnxprune.allocate.measuring import SHARES
from onnxprune.allocate.request import Request
from onnxprune.allocate.targets import TOLERANCE, nearest
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.errors import NothingToPruneError
from onnxprune.score.probe import Probe
from onnxprune.score.probing import answers
from onnxprune.types import FloatArray


def curves(
    request: Request,
    probe: Probe,
    tick: Callable[[str], None] = lambda text: None,
    shares: Sequence[float] = SHARES,
    unmeasured: Collection[str] = (),
) -> dict[str, Curve]:
    """Return the curve of every group, measured at some shares removed.

    Args:
        unmeasured: groups that take the middle one of the curves of the others at each share.
    """
    table = {}
    measured = [group for group in request.groups if group.name not in unmeasured] or list(request.groups)
    asked = [_Widths(group, widths_of(request, group), request.scores[group.name], tuple(shares)) for group in measured]
    tick(f"measuring group 1 of {len(measured)}")
    for number, (group, curve) in enumerate(zip(measured, answers(probe, asked), strict=True), 2):
        table[group.name] = curve
        tick(f"measuring group {min(number, len(measured))} of {len(measured)}")
    for group in request.groups:
        if group.name not in table:
            table[group.name] = like(widths_of(request, group), [table[other.name] for other in measured])
    return {group.name: table[group.name] for group in request.groups}


@dataclass(frozen=True, eq=False)
class _Widths:
    """What the error of a group is at the widths that it may keep."""

    group: ChannelGroup
    widths: list[int]
    scores: FloatArray
    shares: tuple[float, ...]

    def ask(self, probe: Probe) -> Curve:
        """Return its curve, measured where that is needed."""
        order = np.argsort(self.scores, kind="stable")
        return measured_curve(
            self.widths, self.scores, self.shares, lambda count: probe.alone(self.group, order[:count])
        )


@dataclass(eq=False)
class _Unit:
    """Groups that move together."""

    groups: tuple[ChannelGroup, ...]
    widths: list[int]
    errors: FloatArray
    place: int = 0

    def jump(self) -> tuple[int, float] | None:
        """Return the next corner of the lower convex hull and the error per channel on the way there."""
        below = range(self.place + 1, len(self.widths))
        if not below:
            return None
        slopes = [
            (self.errors[i] - self.errors[self.place]) / (self.widths[self.place] - self.widths[i]) for i in below
        ]
        best = int(np.argmin(slopes))
        return self.place + 1 + best, float(slopes[best])


def units_of(groups: Iterable[ChannelGroup], table: dict[str, Curve], tie_blocks: bool) -> list[_Unit]:
    """Return what moves together: each group alone, or groups of the same shape."""
    members: dict[object, list[ChannelGroup]] = {}
    for group in groups:
        shape = (group.kind, group.size, tuple(sorted((s.axis, s.role, s.positions.shape) for s in group.sites)))
        members.setdefault(shape if tie_blocks else group.name, []).append(group)
    units = []
    for same in members.values():
        first = table[same[0].name]
        errors = np.sum([[table[g.name].at(w) for w in first.widths] for g in same], axis=0)
        units.append(_Unit(tuple(same), first.widths, errors))
    return units


def knapsack(
    request: Request, measure: Measure, goal: float, name: str, table: dict[str, Curve], tie_blocks: bool = False
) -> Keep:
    """Return the masks that leave `goal` at the least sum of errors.

    Args:
        measure: masks -> share left.
        table: of `curves`.
        tie_blocks: groups of the same shape keep the same number.

    Raises:
        NothingToPruneError: even the strongest pruning that is allowed leaves more than the goal.
    """
    counts: Counts = {group.name: group.size for group in request.groups}
    units = units_of([g for g in request.groups if g.name not in request.ratios], table, tie_blocks)
    for group in request.groups:
        if group.name in request.ratios:
            counts[group.name] = table[group.name].widths[_nearest(table[group.name], request.ratios[group.name])]

    def share(trial: Counts) -> float:
        return measure(best_channels(request.groups, request.scores, trial))

    left = share(counts)
    queue: list[tuple[float, int, int]] = []
    dearest = 0.0

    def price(number: int, now: float) -> tuple[float, int] | None:
        """Error for each share saved by the next jump of a unit: one aligned step tells what a channel saves."""
        unit = units[number]
        found = unit.jump()
        if found is None:
            return None
        place, slope = found
        trial = counts | {group.name: unit.widths[place] for group in unit.groups}
        saved = (now - share(trial)) / (unit.widths[unit.place] - unit.widths[place])
        return (slope / saved if saved > 0 else np.inf), place

    for number in range(len(units)):
        priced = price(number, left)
        if priced is not None:
            heapq.heappush(queue, (priced[0], number, priced[1]))
    while left > goal and queue:
        _, number, _ = heapq.heappop(queue)
        priced = price(number, left)
        if priced is None:
            continue
        if queue and priced[0] > queue[0][0] * (1 + 1e-9):
            heapq.heappush(queue, (priced[0], number, priced[1]))
            continue
        dearest = max(dearest, priced[0])
        unit, before = units[number], dict(counts)
        unit.place = priced[1]
        counts |= {group.name: unit.widths[unit.place] for group in unit.groups}
        left = share(counts)
        if left < goal * (1 - TOLERANCE / 4):
            counts, left = _back(before, counts, unit, share, goal), goal
            break
        again = price(number, left)
        if again is not None:
            heapq.heappush(queue, (again[0], number, again[1]))
    if left > goal * (1 + TOLERANCE):
        raise NothingToPruneError(
            f"--{name} {goal:g} cannot be reached: with everything removed that may be, {left:.3f} is left. "
            "Ask for more than that, or allow more (--align 1, --min-channels 1, fewer --skip, not --exact-only)."
        )
    if not tie_blocks:
        counts = nearest(request, measure, goal, counts, lambda group, width: table[group].at(width), dearest)
    return best_channels(request.groups, request.scores, counts)


def _back(before: Counts, after: Counts, unit: _Unit, share: Callable[[Counts], float], goal: float) -> Counts:
    """Return the widest step of a jump that is nearest to the goal: the last jump may overshoot."""
    first, last = before[unit.groups[0].name], after[unit.groups[0].name]
    trials = [w for w in unit.widths if last <= w <= first]
    options = [before | {group.name: w for group in unit.groups} for w in trials]
    return min(options, key=lambda counts: abs(share(counts) / goal - 1.0))


def _nearest(curve: Curve, ratio: float) -> int:
    wanted = (1 - ratio) * curve.widths[0]
    return int(np.argmin([abs(width - wanted) for width in curve.widths]))
