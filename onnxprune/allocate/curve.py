"""Error of one group at every width, from a few that are measured; no more are measured than the curve needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnxprune.allocate.request import Request
from onnxprune.channels.groups import ChannelGroup
from onnxprune.types import FloatArray, IntArray

LEAST, NOTHING = 1e-12, 1e-8
"""Errors below are rounding; up to the second one it is all the same what a width costs."""
FLAT = 0.25
"""Between two widths whose errors differ by no more than this part of the larger one, none is measured."""
AGREES, AGREED_FROM = 0.3, 2
"""Once so many widths are measured and the next one is as was expected, this part off at most, the curve is clear."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Error of one group at each width that it may keep; widths fall, the first is the whole group."""

    widths: list[int]
    errors: FloatArray

    def at(self, width: float) -> float:
        """Return the error at a width."""
        return float(np.interp(-width, [-w for w in self.widths], self.errors))


def measured_curve(
    widths: Sequence[int], scores: FloatArray, shares: Sequence[float], error: Callable[[int], float]
) -> Curve:
    """Return a curve that is measured at some widths and follows the scores in between.

    Args:
        widths: that the group may keep, falling; the first is the whole group.
        scores: (channels,) of the group.
        shares: of the channels removed, near which widths are measured: the last, the middle and a smaller one
            first, others where these leave the curve open.
        error: number of channels removed -> error.
    """
    removed = np.array([widths[0] - width for width in widths])
    nearest = {int(np.argmin(np.abs(removed - share * widths[0]))) for share in shares}
    points = sorted(nearest - {0} | {len(widths) - 1})
    if len(widths) == 1:
        return Curve(list(widths), np.zeros(1))
    shape, known = shape_of(scores, removed), {0: 0.0}
    for number, point in enumerate(_order(points)):
        expected = float(_between(removed, shape, known)[point])
        below, above = max(p for p in known if p < point), min((p for p in known if p > point), default=point)
        if number and known[above] - known[below] <= max(FLAT * known[above], NOTHING):
            continue
        known[point] = max(error(int(removed[point])), LEAST)
        if number >= AGREED_FROM and abs(known[point] - expected) <= AGREES * known[point]:
            break
    return Curve(list(widths), np.maximum.accumulate(_between(removed, shape, known)))


def _order(points: Sequence[int]) -> list[int]:
    """Return the last point, the middle one, that between it and the first, and all others."""
    first = [points[-1], points[len(points) // 2], points[len(points) // 4]]
    return list(dict.fromkeys([*first, *points]))


def _between(removed: IntArray, shape: FloatArray, known: dict[int, float]) -> FloatArray:
    """Return (widths,): the errors that are known, and the mean of two guesses in between.

    One goes with the ratios of the scores, as errors do where a curve is smooth. The other divides the difference of
    two errors as the scores do, and is what counts between an error of nearly nothing and a large one: there ratios
    say that hardly any of the widths costs anything.
    """
    places = sorted(known)
    if len(places) == 1:
        return np.zeros(len(removed))
    safe = np.maximum(shape, LEAST)
    shift = np.interp(np.arange(len(removed)), places[1:], [np.log(known[p] / safe[p]) for p in places[1:]])
    ratios, differences = safe * np.exp(shift), np.zeros(len(removed))
    for low, high in pairwise(places):
        inside = np.arange(low, high + 1)
        line = (removed[inside] - removed[low]) / (removed[high] - removed[low])
        rise = shape[high] - shape[low]
        part = np.minimum((shape[inside] - shape[low]) / rise, line) if rise > 0 else line
        differences[inside] = known[low] + (known[high] - known[low]) * part
    return np.where(removed > 0, (ratios + differences) / 2, 0.0)


def shape_of(scores: FloatArray, removed: IntArray) -> FloatArray:
    """Return the shape of a curve from scores: the highest of the removed ones, else the square of the share."""
    ordered = np.sort(scores)
    finite = bool(np.isfinite(ordered).all() and ordered[-1] > 0)
    shape = ordered[np.maximum(removed, 1) - 1] / ordered[-1] if finite else (removed / len(scores)) ** 2
    return np.where(removed > 0, np.maximum(shape, 1e-9), 0.0)


def like(widths: Sequence[int], others: Sequence[Curve]) -> Curve:
    """Return the median of other curves at the same shares removed."""
    at = [[curve.at(curve.widths[0] * width / widths[0]) for curve in others] for width in widths]
    return Curve(list(widths), np.maximum.accumulate(np.median(at, axis=1)))


def widths_of(request: Request, group: ChannelGroup) -> list[int]:
    """Return the counts that a group may keep: all, then multiples of its step down to the least."""
    step, least = request.step(group), request.least(group)
    lower = range((group.size - 1) // step * step, 0, -step)
    return [group.size, *(width for width in lower if least <= width < group.size)]
