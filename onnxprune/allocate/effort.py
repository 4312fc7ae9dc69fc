"""How much is run to measure what groups cost: samples and widths within a bound of multiply-accumulates.

The bound is a count, not a clock, so that the same model and data always give the same choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.allocate.measures import Shaped
from onnxprune.graph.count import macs
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import fixed_batch

SHARES = (0.125, 0.25, 0.5, 0.75, 0.9)
"""Shares removed at which a group is measured."""
FEWER_SHARES = (0.25, 0.5, 0.9)
SAMPLES = 64
ENOUGH = 8
"""Samples below which fewer widths are measured first: each tells about every output."""
FEWEST = 2
MOST_MACS = 4e12
"""Of all runs together: one to three minutes on one core of a server."""


@dataclass(frozen=True)
class Effort:
    """Samples and shares removed for every group, and what was left out, if anything."""

    samples: int
    shares: tuple[float, ...]
    note: str = ""


def effort(channels: Shaped, data: Data, groups: int, shares: Sequence[float] | None = None) -> Effort:
    """Return how much to run for so many groups.

    Args:
        shares: measured whatever it costs; None: the usual ones, fewer on large networks.
    """
    wanted, each = min(SAMPLES, data.samples), macs_per_sample(channels, data)

    def affordable(shares: Sequence[float]) -> int:
        runs = max(1, groups * len(shares))
        return int(min(wanted, max(FEWEST, MOST_MACS // max(runs * each, 1))))

    usual = tuple(shares or SHARES)
    chosen = usual
    if shares is None and affordable(usual) < min(ENOUGH, wanted):
        chosen = FEWER_SHARES
    samples = affordable(chosen)
    if samples == wanted and chosen == usual:
        return Effort(samples, chosen)
    widths = f" and {len(chosen)} instead of {len(usual)} widths" if chosen != usual else ""
    note = (
        f"errors of {groups} groups were measured on {samples} of {data.samples} samples{widths}: "
        f"one run takes {each / 1e9:.2g} GMACs, all of them are bounded by {MOST_MACS / 1e12:g} TMACs"
    )
    return Effort(samples, chosen, note)


def macs_per_sample(channels: Shaped, data: Data) -> float:
    """Return the multiply-accumulates of one sample of the data; the traced sizes stand for others in proportion."""
    shapes = channels.shapes({})
    feed = next(iter(data.batches(1)))
    traced = sum(_elements(shapes[name]) for name in feed if name in shapes)
    given = sum(array.size for name, array in feed.items() if name in shapes)
    total = sum(macs(channels.view, shapes).values())
    return float(total) * given / max(traced, 1) / (fixed_batch(data.inputs) or 1)


def _elements(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
