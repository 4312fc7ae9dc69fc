"""From a level of pruning to whole numbers of kept channels."""

from __future__ import annotations

import numpy as np

from onnxprune.allocate.alignment import to_multiple
from onnxprune.allocate.request import Request
from onnxprune.channels.groups import ChannelGroup, Site

Counts = dict[str, int]
"""Group name -> channels that stay."""


def counts_at(request: Request, level: float) -> Counts:
    """Return how many channels each group keeps at a level.

    Args:
        request: groups, scores and limits.
        level: share of the channels removed, 0 to 1: of every group (uniform) or of all groups together (global).
    """
    return _whole(request, _wanted(request, level))


def _wanted(request: Request, level: float) -> dict[str, float]:
    """Channels to keep before rounding."""
    free = [g for g in request.groups if g.name not in request.ratios]
    wanted = {g.name: (1.0 - request.ratios[g.name]) * g.size for g in request.groups if g.name in request.ratios}
    if request.scope == "uniform":
        return wanted | {g.name: (1.0 - level) * g.size for g in free}
    pooled = np.concatenate([request.scores[g.name] for g in free]) if free else np.zeros(0)
    removed = round(level * len(pooled))
    threshold = np.sort(pooled)[removed - 1] if removed else -np.inf
    return wanted | {g.name: float(np.count_nonzero(request.scores[g.name] > threshold)) for g in free}


def _whole(request: Request, wanted: dict[str, float]) -> Counts:
    """Round axis by axis: what one group loses by rounding the next group on the same axis gets.

    Many small groups on one axis (the pieces between two channel shuffles) would else all round the same way.
    """
    counts: Counts = {}
    for axis, members in _axes(request).items():
        fixed = sum(site.positions.size for _, site in members)
        locked = max(0, request.sizes.get(axis, fixed) - fixed)
        exact = sum(wanted[g.name] * s.positions.shape[1] for g, s in members)
        carry = _aligned_surplus(request, exact, fixed, locked) if len(members) > 1 else 0.0
        carry += sum((wanted[g.name] - counts[g.name]) * s.positions.shape[1] for g, s in members if g.name in counts)
        for group, site in members:
            if group.name not in counts:
                per_channel = site.positions.shape[1]
                goal = wanted[group.name] + carry / per_channel
                counts[group.name] = to_multiple(goal, request.step(group), request.least(group), group.size)
                carry += (wanted[group.name] - counts[group.name]) * per_channel
    return counts


def _aligned_surplus(request: Request, exact: float, fixed: int, locked: int) -> float:
    """What has to be added to the exact length of a shared axis to make the whole axis a multiple."""
    if exact >= fixed:
        return 0.0
    multiple = request.rounding.multiple(fixed + locked)
    return to_multiple(exact + locked, multiple, 1, fixed + locked) - locked - exact


def _axes(request: Request) -> dict[tuple[str, int], list[tuple[ChannelGroup, Site]]]:
    """Axes that groups occupy as writers (a group that nothing writes: any of its axes), in order of the groups."""
    table: dict[tuple[str, int], list[tuple[ChannelGroup, Site]]] = {}
    for group in request.groups:
        for site in [s for s in group.sites if s.role == "writes"] or group.sites[:1]:
            table.setdefault((site.tensor, site.axis), []).append((group, site))
    return table
