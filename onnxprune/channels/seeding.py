"""What goes first: the classes of the positions that are to go from the border of the graph."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.boundary import Boundary
from onnxprune.channels.solve import Solution, coordinates
from onnxprune.channels.state import State
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.types import BoolArray, IntArray

SPATIAL = "a spatial axis"
"""End of the reason why places in an image stay."""


def seed(state: State, solution: Solution, boundary: Boundary) -> BoolArray:
    """Return (ids,) by class: what a boundary removes.

    Raises:
        NothingToPruneError: an axis that is to lose positions is held by an operator (named in the message).
        UsageError: a tensor or axis does not exist, is of samples or of places in an image, or positions that go share
            their weights with some that stay.
    """
    removed = np.zeros(len(solution.label), dtype=bool)
    for (key, axis), kept in boundary.cut.items():
        label = solution.label[_ids(state, key, axis, kept)]
        gone = label[~kept]
        _check_meaning(state, solution, gone, key, axis)
        _check_free(solution, gone, key, axis)
        removed[gone[~solution.derived[gone]]] = True
        _choose_factors(solution, label, kept, removed)
    closed = solution.close(removed)
    for ranking in state.rankings:
        if ranking.ranked is not None:
            left = int(np.count_nonzero(~closed[solution.label[ranking.ids]]))
            removed[solution.label[ranking.ranked[left:]]] = True
    closed = solution.close(removed)
    for (key, axis), kept in boundary.cut.items():
        _check_kept(state, solution, closed, key, axis, kept)
    return removed


def _ids(state: State, key: str, axis: int, kept: BoolArray) -> IntArray:
    axes = state.axes.get(key)
    if axes is None:
        raise UsageError(f"'{key}' is no tensor of the model whose shape is known; see onnxprune inspect.")
    if axis >= len(axes):
        raise UsageError(f"'{key}' has {len(axes)} axes; there is no axis {axis}.")
    if len(axes[axis]) != len(kept):
        raise UsageError(f"axis {axis} of '{key}' has {len(axes[axis])} positions, not {len(kept)}.")
    return axes[axis]


def _check_meaning(state: State, solution: Solution, classes: IntArray, key: str, axis: int) -> None:
    """Refuse an axis of samples or of places in an image: positions of it are no parts of a model."""
    if len(classes) and state.trace.dynamic(key)[axis]:
        raise UsageError(
            f"axis {axis} of '{key}' cannot lose positions: its size is dynamic, as of samples in a batch."
        )
    held = classes[solution.pinned[classes]]
    number = int(solution.reason[held[0]]) if len(held) else -1
    if number >= 0 and solution.reasons[number].endswith(SPATIAL):
        raise UsageError(f"axis {axis} of '{key}' cannot lose positions: {solution.reasons[number]}.")


def _check_free(solution: Solution, classes: IntArray, key: str, axis: int) -> None:
    held = classes[solution.pinned[classes]]
    if len(held):
        number = int(solution.reason[held[0]])
        reason = solution.reasons[number] if number >= 0 else "nothing writes it"
        output = reason.endswith(" is an output of the model")
        hint = "; keep the same positions of it, or leave it out" if output else ""
        raise NothingToPruneError(f"axis {axis} of '{key}' cannot lose positions: {reason}{hint}.")


def _choose_factors(solution: Solution, label: IntArray, kept: BoolArray, removed: BoolArray) -> None:
    """Positions of a product go by its factors: a coordinate goes where all that has it is to go."""
    wanted = np.zeros(len(removed), dtype=bool)
    wanted[label[~kept]] = True
    wanted[label[kept]] = False
    for _ in range(len(solution.products) + 1):
        before = int(wanted.sum())
        for product in solution.products:
            flat = wanted[product.flat]
            if not flat.any():
                continue
            for factor, coordinate in zip(product.factors, coordinates(product), strict=True):
                alive = np.zeros(len(removed), dtype=bool)
                alive[coordinate[~flat]] = True
                wanted[factor[~alive[factor] & ~solution.pinned[factor]]] = True
        if int(wanted.sum()) == before:
            break
    removed |= wanted & ~solution.derived & ~solution.pinned


def _check_kept(state: State, solution: Solution, closed: BoolArray, key: str, axis: int, kept: BoolArray) -> None:
    label = solution.label[state.axes[key][axis]]
    stays = ~closed[label]
    lost = np.flatnonzero(kept & ~stays)
    if len(lost):
        twins = np.flatnonzero(~kept & np.isin(label, label[lost[:1]]))
        other = f"position {twins[0]}, which is to go" if len(twins) else "what is to go"
        raise UsageError(f"axis {axis} of '{key}': position {lost[0]} shares its weights with {other}; keep both.")
    extra = np.flatnonzero(~kept & stays)
    if len(extra):
        raise UsageError(
            f"axis {axis} of '{key}': position {extra[0]} cannot go alone; the axis is a product of others, keep or "
            "remove whole rows of it."
        )
