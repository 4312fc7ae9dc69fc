"""Mixtures of experts, written out: of positions that compete, which ones are experts.

What chooses experts (a Softmax, a TopK) looks like what chooses a class or a key. Its positions are experts where they
count the matrices of a stack, one of which is used for each: those may go, and the choice is among those left.
"""

from __future__ import annotations

import numpy as np

from onnxprune.channels.grouping import Roles, collect_axes
from onnxprune.channels.solve import Solution
from onnxprune.channels.state import State


def settle(state: State, solution: Solution) -> bool:
    """Let experts compete, and pin what competes and is none; tell whether anything was pinned."""
    if not state.contests:
        return False
    roles = Roles(state)
    counted = np.zeros(len(solution.label), dtype=bool)
    for axis in collect_axes(state):
        if (axis.tensor, axis.axis) in state.stacks and roles.of(axis) == "scales":
            counted[solution.label[axis.ids]] = True
    others = [contest for contest in state.contests if not counted[solution.label[contest.ids]].all()]
    state.experts += [contest.ids for contest in state.contests if contest not in others]
    for contest in others:
        state.space.pin(contest.ids, contest.reason)
    silent = {id(contest.node) for contest in others} - {id(c.node) for c in state.contests if c not in others}
    state.normalised[:] = [node for node in state.normalised if id(node) not in silent]
    state.contests.clear()
    return bool(others)
