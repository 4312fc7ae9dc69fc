"""What an operand that spells sizes out must hold after pruning, and how it gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np

from onnxprune.channels.edits import EntrySize
from onnxprune.channels.refold import Refold
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray

COUNTS_FROM_ZERO = frozenset({"Slice", "Pad", "Split"})
"""Operators whose size entries may be 0 or negative by meaning, not as placeholders."""

Way = Literal["holds", "constant", "computed", "stuck"]


@dataclass(frozen=True, eq=False)
class Spelled:
    """One size operand after pruning.

    way: it "holds" by itself, becomes the constant `value`, is still "computed" where `dynamic` (times `kept` over
        `full` there) and `value` elsewhere, or is "stuck": no such thing gives what is needed.
    """

    node: Node
    input: int
    way: Way
    value: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dynamic: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    kept: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    full: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Operand:
    """A node input whose integers a rule has read; `edits` say which entries are sizes, the others stay."""

    node: Node
    input: int
    edits: tuple[EntrySize, ...]

    @property
    def key(self) -> str:
        """The tensor that is read there."""
        return self.node.inputs[self.input]


def operands(refold: Refold) -> list[Operand]:
    """List what spells sizes out, and what is computed from sizes and comes out differently now."""
    state = refold.state
    table: dict[tuple[int, int], list[EntrySize]] = {}
    nodes: dict[int, Node] = {}
    for edit in state.edits:
        if isinstance(edit, EntrySize):
            table.setdefault((id(edit.node), edit.input), []).append(edit)
            nodes[id(edit.node)] = edit.node
    for node in state.view.nodes:
        for index, key in enumerate(node.inputs):
            slot = (id(node), index)
            if id(node) not in state.visited or slot in table or key in state.axes:  # what has ids is followed
                continue
            if refold.has_changed(key) and not _is_data(refold, slot):
                table[slot] = []
                nodes[slot[0]] = node
    return [Operand(nodes[node], index, tuple(edits)) for (node, index), edits in table.items()]


def _is_data(refold: Refold, slot: tuple[int, int]) -> bool:
    """Data of a known value are cut like a stored tensor."""
    found = refold.state.folded.get(slot)
    return found is not None and found[0].inputs[slot[1]] in refold.state.trace.values


def spell(refold: Refold, operand: Operand) -> Spelled:
    """Decide how an operand becomes what the analysis says, under both assignments of sizes."""
    node, index, key = operand.node, operand.input, operand.key
    one, two = (_expected(refold, operand.edits, key, run) for run in (0, 1))
    found = [refold.value(key, run) for run in (0, 1)]
    if one is None or two is None or (same(found[0], one) and same(found[1], two)):
        return Spelled(node, index, "holds")
    if np.array_equal(one, two):
        return Spelled(node, index, "constant", one)
    if one.shape != two.shape or one.dtype.kind not in "iu":
        return Spelled(node, index, "stuck")
    if node.op_type == "Reshape" and index == 1 and not node.attribute("allowzero", 0):
        target = _reshape_target(refold, node, (one, two))
        if target is not None:
            return Spelled(node, index, "constant", target)
    return _computed(node, index, (one, two), found)


def _expected(refold: Refold, edits: Sequence[EntrySize], key: str, run: int) -> Array | None:
    """What a size operand must hold; 0 and -1 in a shape follow by themselves."""
    old = refold.runs[run].values.get(key)
    if old is None:
        return None
    expected = np.array(old, copy=True)
    flat = expected.reshape(-1)
    for edit in edits:
        if edit.node.op_type in COUNTS_FROM_ZERO:
            flat[edit.entry] = refold.count(edit.ids)
        elif flat[edit.entry] > 0:
            flat[edit.entry] = refold.scale(edit.ids, int(flat[edit.entry]))
    return expected


def _reshape_target(refold: Refold, node: Node, expected: tuple[Array, Array]) -> Array | None:
    """A target with 0 where the input has the same dynamic size and at most one -1."""
    shapes = [refold.shape(node.inputs[0], run) for run in (0, 1)]
    spelled = expected[0].copy()
    for entry in np.flatnonzero(expected[0] != expected[1]):
        alike = all(
            shape is not None and entry < len(shape) and shape[entry] == value[entry]
            for shape, value in zip(shapes, expected, strict=True)
        )
        spelled[entry] = 0 if alike else -1
    return spelled if np.count_nonzero(spelled == -1) <= 1 else None


def _computed(node: Node, index: int, expected: tuple[Array, Array], found: Sequence[Array | None]) -> Spelled:
    """A dynamic entry is off by one factor (the heads that stay of all) whatever the dynamic sizes are."""
    one, two = expected
    if one.ndim > 1 or any(value is None or value.shape != one.shape for value in found):
        return Spelled(node, index, "stuck")
    dynamic = np.asarray(one != two)
    kept, full = np.ones_like(one), np.ones_like(one)
    first, second = (np.asarray(value) for value in found)
    for place in np.argwhere(dynamic).tolist():
        entry = tuple(place)

        if first[entry] == one[entry] and second[entry] == two[entry]:
            continue
        if first[entry] <= 0 or second[entry] <= 0:
            return Spelled(node, index, "stuck")
        factor = Fraction(int(one[entry]), int(first[entry]))
        if factor != Fraction(int(two[entry]), int(second[entry])):
            return Spelled(node, index, "stuck")
        kept[entry], full[entry] = factor.numerator, factor.denominator
    return Spelled(node, index, "computed", one, dynamic, kept, full)


def same(found: Array | None, expected: Array) -> bool:
    """Tell whether a value is there and equal."""
    return found is not None and found.shape == expected.shape and bool(np.array_equal(found, expected))
