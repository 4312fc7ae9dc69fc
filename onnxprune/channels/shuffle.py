"""Channel shuffles: Reshape, Transpose, Reshape that only permute the positions of one axis.

Followed node by node, the axes in between must stay rectangular, which ties channels for no reason. Followed as what
they are, y[.., i, ..] = x[.., permutation[i], ..], every channel is free; the run becomes a Gather once it loses some.
"""

from __future__ import annotations

import numpy as np

from onnxprune.channels.context import Context, RuleError
from onnxprune.channels.edits import Shuffle
from onnxprune.channels.rules.reshape import blocks
from onnxprune.channels.state import State
from onnxprune.graph.trace import Shape
from onnxprune.graph.view import Node
from onnxprune.types import IntArray

Run = tuple[Node, Node, Node]


def find_shuffles(state: State) -> dict[int, Run]:
    """Find runs of nodes that permute one axis.

    Returns:
        number (`id`) of each node of a run -> the run.
    """
    found: dict[int, Run] = {}
    for node in state.view.nodes:
        if node.op_type == "Transpose" and not node.domain:
            run = _run_around(state, node)
            if run is not None and _permutation(state, run) is not None:
                found |= {id(member): run for member in run}
    return found


def _run_around(state: State, transpose: Node) -> Run | None:
    before = state.view.producers.get(transpose.inputs[0])
    after = _only_reader(state, transpose.outputs[0])
    if before is None or after is None or before.graph is not transpose.graph or after.graph is not transpose.graph:
        return None
    is_run = all(n.op_type == "Reshape" and not n.domain for n in (before, after))
    return (before, transpose, after) if is_run and _only_reader(state, before.outputs[0]) is transpose else None


def _only_reader(state: State, key: str) -> Node | None:
    readers = state.view.readers.get(key, [])
    return readers[0][0] if len(readers) == 1 and key not in state.view.handed_out else None


def _permutation(state: State, run: Run) -> tuple[int, IntArray] | None:
    """Return the axis that a run permutes and the source of each position, None where it does more than that."""
    shapes = state.trace.shapes
    keys = (run[0].inputs[0], run[0].outputs[0], run[2].outputs[0])
    if not all(key in shapes for key in keys):
        return None
    source, middle, target = (shapes[key] for key in keys)
    order = run[1].attribute("perm") or list(range(len(middle)))[::-1]
    if source != target or 0 in source:
        return None
    split = [(one, two) for one, two in blocks(source, middle) if len(two) > 1 or len(one) > 1]
    if len(split) != 1 or len(split[0][0]) != 1:
        return None
    axis, parts = split[0][0][0], split[0][1]
    moved = [position for position, origin in enumerate(order) if position != origin and middle[origin] > 1]
    if not moved or any(order[position] not in parts for position in moved):
        return None
    if [order[p] for p in range(len(order)) if order[p] not in parts] != [
        p for p in range(len(order)) if p not in parts
    ]:
        return None
    return axis, _positions(source[axis], middle, parts, order)


def _positions(size: int, middle: Shape, parts: list[int], order: list[int]) -> IntArray:
    inner = [parts.index(origin) for origin in order if origin in parts]
    return np.arange(size, dtype=np.int64).reshape([middle[p] for p in parts]).transpose(inner).reshape(-1)


def visit_shuffle(state: State, run: Run) -> None:
    """y[.., i, ..] = x[.., permutation[i], ..]

    Raises:
        RuleError: the rank of the input is unknown.
    """
    found = _permutation(state, run)
    if found is None:
        raise RuleError(f"{run[0].label}: no permutation of one axis")
    axis, positions = found
    data = list(Context(state, run[0]).axes(0))
    ids = data[axis]
    data[axis] = ids[positions]
    Context(state, run[2]).set(data, zero=Context(state, run[0]).is_zero(0))
    if not state.space.is_born_pinned(ids):
        state.edits.append(Shuffle(run, axis, ids, positions))
