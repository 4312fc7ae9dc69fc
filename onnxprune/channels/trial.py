"""Whether every size that is computed can be mended, tried before anything is chosen: what cannot is locked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.channels.groups import ChannelGroup
from onnxprune.channels.operands import operands, spell
from onnxprune.channels.refold import Refold
from onnxprune.channels.solve import Solution
from onnxprune.channels.state import State
from onnxprune.types import BoolArray, IntArray

REASON = "its sizes are computed in a way that cannot be mended"
OUTSIDE = "a size of it leaves the graph or enters a body"


def lock_stuck(state: State, solution: Solution, groups: Sequence[ChannelGroup]) -> bool:
    """Pin the axes whose sizes could not be mended if channels of some groups were removed.

    Returns:
        whether anything was pinned, so that the classes have to be solved again.
    """
    found = False
    for mask in _masks(solution, groups) if _has_sizes(state) else ():
        for ids, reason in _stuck(Refold(state, mask)):
            found = found or not solution.pinned[solution.label[ids]].all()
            state.space.pin(ids, reason)
    return found


def _has_sizes(state: State) -> bool:
    """Only a graph that asks for sizes can compute with them."""
    return any(node.op_type in ("Shape", "Size") and not node.domain for node in state.view.nodes)


def _stuck(refold: Refold) -> Iterator[tuple[IntArray, str]]:
    state = refold.state
    for operand in operands(refold):
        if spell(refold, operand).way == "stuck":
            for ids in (*(edit.ids for edit in operand.edits), *refold.sources(operand.key)):
                yield ids, f"{operand.node.label}: {REASON}"
    for key in (*state.view.outputs, *(key for node in state.view.nodes for key in node.captured)):
        if refold.has_changed(key):
            for ids in refold.sources(key):
                yield ids, f"'{key}': {OUTSIDE}"


def _masks(solution: Solution, groups: Sequence[ChannelGroup]) -> Iterator[BoolArray]:
    """Half of every group gone; heads and positions inside heads one after the other."""
    for active in (True, False):
        chosen = [group for group in groups if group.active is active]
        if not chosen:
            continue
        removed = np.zeros(len(solution.label), dtype=bool)
        for group in chosen:
            removed[group.classes[: max(1, group.size // 2)]] = True
        yield ~solution.close(removed)[solution.label]
