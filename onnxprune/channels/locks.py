"""Why the rest stays: per parameter axis, how many positions cannot be removed for which reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.channels.grouping import Axis, Roles
from onnxprune.channels.groups import ChannelGroup, Lock
from onnxprune.channels.solve import Solution
from onnxprune.channels.state import State

ALONE = "nothing competes with it: no other channel has the same axes, or nothing writes or reads it"


def build_locks(state: State, solution: Solution, axes: Sequence[Axis], groups: Sequence[ChannelGroup]) -> list[Lock]:
    """Give the reason of every position of a parameter axis that no group holds; kernel positions need none."""
    child, parent = solution.ancestors
    held = np.zeros(len(solution.label), dtype=bool)
    for group in groups:
        held[group.classes] = True
    held[child[held[parent]]] = True
    roles = Roles(state)
    locks: list[Lock] = []
    for axis in axes:
        if not axis.tensor or roles.of(axis) is None:
            continue
        label = solution.label[axis.ids]
        stays = label[~held[label]]
        numbers, counts = np.unique(np.where(solution.pinned[stays], solution.reason[stays], -1), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            locks.append(Lock(axis.tensor, axis.axis, count, solution.reasons[number] if number >= 0 else ALONE))
    return locks
