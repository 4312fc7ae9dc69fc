"""What a rule sees of one node: ids of its inputs, and the few things it may say about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.channels.boundary import Boundary, Ranking
from onnxprune.channels.edits import (
    AttributeList,
    AttributeSize,
    AttributeValue,
    Edit,
    EntrySize,
    EqualSplit,
    Indices,
    Selection,
)
from onnxprune.channels.groups import Role
from onnxprune.channels.numbers import Numbers
from onnxprune.channels.space import Axes, Space
from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import Node, View
from onnxprune.types import Array, BoolArray, IntArray


class RuleError(Exception):
    """A rule cannot follow its node; the message is the reason with which everything it touches is pinned."""


@dataclass(frozen=True, eq=False)
class Use:
    """A private copy of a small constant at one node input."""

    root: str
    node: Node
    input: int
    axes: tuple[IntArray, ...]
    label: str

    @property
    def name(self) -> str:
        """ "node:input", as plans write it; a node whose name another one has is called by its first output."""
        return f"{self.label}:{self.input}"

    @property
    def former_name(self) -> str:
        """The name in plans of earlier releases, which two nodes of one name shared."""
        return f"{self.node.name or self.node.outputs[0]}:{self.input}"


@dataclass(eq=False)
class State:
    """Everything that the walk over a graph collects."""

    view: View
    trace: Trace
    space: Space = field(default_factory=Space)
    axes: dict[str, Axes] = field(default_factory=dict)
    zero: dict[str, bool] = field(default_factory=dict)
    uses: dict[tuple[int, int], Use] = field(default_factory=dict)
    folded: dict[tuple[int, int], tuple[Node, Axes]] = field(default_factory=dict)
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    use_roles: dict[tuple[int, int, int], Role] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    zero_points: dict[str, tuple[str, int]] = field(default_factory=dict)
    zero_tables: set[str] = field(default_factory=set)
    normalised: list[Node] = field(default_factory=list)
    attentions: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    fixed: set[str] = field(default_factory=set)
    boundary: Boundary = field(default_factory=Boundary)
    rankings: list[Ranking] = field(default_factory=list)
    numbers: dict[str, list[Numbers]] = field(default_factory=dict)
    number_uses: set[tuple[int, int]] = field(default_factory=set)
    visited: set[int] = field(default_factory=set)
    _cut_up: dict[str, bool] = field(default_factory=dict)
    unit: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.space.pinned(1, "an axis of a single position")

    def rank(self, ranking: Ranking) -> None:
        """Note that a tensor holds numbers of positions."""
        self.rankings.append(ranking)
        mask = np.zeros([max(size, 1) for size in self.trace.shapes.get(ranking.output, ())], dtype=bool)
        mask[ranking.place] = True
        self.numbers.setdefault(ranking.output, []).append(Numbers(ranking.ids, mask))

    def is_cut_up(self, root: str) -> bool:
        """Tell whether a constant is only taken apart (gate biases): its pieces then share one set of ids."""
        if root not in self._cut_up:
            readers = self.view.readers.get(root, [])
            self._cut_up[root] = bool(readers) and all(
                node.op_type in ("Slice", "Split") and index == 0 for node, index in readers
            )
        return self._cut_up[root]

    @cached_property
    def parameter_order(self) -> dict[str, int]:
        """Parameter key -> its place in the file."""
        return {key: number for number, key in enumerate(self.view.parameters)}

    def new_axes(self, shape: Shape) -> Axes:
        """Return fresh ids for a tensor; axes of size 1 share the pinned unit."""
        return [self.unit if size == 1 else self.space.fresh(size) for size in shape]

    def pinned_axes(self, shape: Shape, reason: str) -> Axes:
        """Return axes that may not change."""
        return [self.unit if size == 1 else self.space.pinned(size, reason) for size in shape]


def is_private(shape: Shape) -> bool:
    """Tell whether a constant is copied per user: at most one axis is longer than 1."""
    return sum(size > 1 for size in shape) <= 1


class Context:
    """One node under analysis."""

    def __init__(self, state: State, node: Node) -> None:
        self.state = state
        self.space = state.space
        self.node = node
        self.spoken: list[IntArray] = []

    # --- reading ----------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Tell whether an optional input is there."""
        return self.node.has_input(index)

    def axes(self, index: int) -> Axes:
        """Return the ids of an input, one array per axis (fresh ones for a small constant, which is copied per use).

        Raises:
            RuleError: the rank of the input is unknown.
        """
        key = self.node.inputs[index]
        state = self.state
        slot = (id(self.node), index)
        if slot in state.uses:
            return list(state.uses[slot].axes)
        if slot in state.folded:
            return state.folded[slot][1]
        if key in state.trace.first.values and key not in state.view.parameters and key not in state.axes:
            return self._folded_axes(key, slot)
        root = state.view.root(key)
        parameter = state.view.parameters.get(root)
        if parameter is not None and is_private(parameter.dims) and not state.is_cut_up(root):
            axes = state.new_axes(parameter.dims)
            state.uses[slot] = Use(root, self.node, index, tuple(axes), state.view.label(self.node))
            return axes
        if parameter is not None:
            if root not in state.axes:
                state.axes[root] = state.new_axes(parameter.dims)
            return state.axes[root]
        if root in state.view.closed:
            raise RuleError(f"{self.node.label}: its input '{key}' is a sparse tensor")
        if key not in state.axes:
            raise RuleError(f"{self.node.label}: the shape of its input '{key}' is unknown")
        return state.axes[key]

    def axes_of(self, key: str) -> Axes | None:
        """Return the ids of any tensor made before this node, None where its shape is unknown."""
        state = self.state
        root = state.view.root(key)
        parameter = state.view.parameters.get(root)
        if parameter is not None and root not in state.axes:
            state.axes[root] = state.pinned_axes(parameter.dims, f"{self.node.label}: a constant result")
        if parameter is not None:
            return state.axes[root]
        if key in state.trace.first.values:
            return state.pinned_axes(state.trace.shapes[key], f"{self.node.label}: a computed result")
        return state.axes.get(key)

    def is_zero_key(self, key: str) -> bool:
        """Like `is_zero`, for any tensor made before this node."""
        return self.state.zero.get(key, False)

    def is_dynamic_slice(self, axis: int) -> bool:
        """Tell whether the bounds of a Slice change with dynamic sizes where the sliced axis does not."""
        moving = any(self.is_dynamic_value(i) for i in range(1, len(self.node.inputs)) if self.has(i))
        return moving and not self.dynamic(0)[axis] and bool(self.output_dynamic()[axis])

    def _folded_axes(self, key: str, slot: tuple[int, int]) -> Axes:
        shape = self.state.trace.shapes[key]
        if key in self.state.trace.values:
            axes = self.state.new_axes(shape)
        else:
            axes = self.state.pinned_axes(shape, f"{self.node.label}: '{key}' is computed from dynamic sizes")
        self.state.folded[slot] = (self.node, axes)
        return axes

    def shape(self, index: int) -> Shape:
        """Return the concrete shape of an input.

        Raises:
            RuleError: it is unknown.
        """
        key = self.node.inputs[index]
        if key not in self.state.trace.shapes:
            raise RuleError(f"{self.node.label}: the shape of its input '{key}' is unknown")
        return self.state.trace.shapes[key]

    def output_shape(self, index: int = 0) -> Shape:
        """Return the concrete shape of an output.

        Raises:
            RuleError: it is unknown.
        """
        key = self.node.outputs[index]
        if key not in self.state.trace.shapes:
            raise RuleError(f"{self.node.label}: the shape of its output is unknown")
        return self.state.trace.shapes[key]

    def value(self, index: int) -> Array | None:
        """Return a small integer (or scalar) constant input, None where it is absent or not static."""
        if not self.has(index):
            return None
        return self.state.trace.values.get(self.node.inputs[index])

    def is_dynamic_value(self, index: int) -> bool:
        """Tell whether an input is folded in each trace but depends on dynamic sizes."""
        key = self.node.inputs[index]
        return key in self.state.trace.first.values and key not in self.state.trace.values

    def traced_value(self, index: int) -> Array | None:
        """Return the value that an input has under the traced sizes, dynamic or not."""
        return self.state.trace.first.values.get(self.node.inputs[index]) if self.has(index) else None

    def integers(self, attribute: str, index: int | None = None) -> list[int] | None:
        """Return a list that is an attribute in old operator sets and an input in newer ones; None where it is absent.

        Raises:
            RuleError: the input is there but not static.
        """
        listed = self.node.attribute(attribute)
        if listed is not None:
            return [int(listed)] if isinstance(listed, int) else [int(v) for v in listed]
        if index is None or not self.has(index):
            return None
        value = self.traced_value(index)
        if value is None:
            raise RuleError(f"{self.node.label}: its '{attribute}' is computed from data")
        return [int(v) for v in np.atleast_1d(value)]

    def is_parameter(self, index: int) -> bool:
        """Tell whether an input is a stored tensor (directly or through Identity)."""
        return self.has(index) and self.state.view.root(self.node.inputs[index]) in self.state.view.parameters

    def dynamic(self, index: int) -> BoolArray:
        """Return (rank,) True where an input's axis has a dynamic size."""
        return self.state.trace.dynamic(self.node.inputs[index])

    def output_dynamic(self, index: int = 0) -> BoolArray:
        """Return (rank,) True where an output's axis has a dynamic size."""
        return self.state.trace.dynamic(self.node.outputs[index])

    def is_zero(self, index: int) -> bool:
        """Tell whether removed positions of an input are exactly zero once their parameters are zeroed."""
        if not self.has(index):
            return True
        key = self.node.inputs[index]
        if key in self.state.trace.first.values and key not in self.state.view.parameters:
            return not np.any(self.state.trace.first.values[key])
        if self.is_parameter(index):
            return True
        return self.state.zero.get(key, False)

    # --- writing ----------------------------------------------------------------------------------------------

    def set(self, axes: Axes, output: int = 0, zero: bool = False) -> None:
        """Give an output its ids. `zero`: removed positions are exactly zero here once parameters are zeroed.

        Raises:
            RuleError: the ids do not fit the traced shape.
        """
        if output >= len(self.node.outputs) or not self.node.outputs[output]:
            return
        key = self.node.outputs[output]
        shape = self.state.trace.shapes.get(key)
        found = tuple(len(a) for a in axes)
        if shape is not None and shape != found:
            raise RuleError(f"{self.node.label}: the rule gives shape {found}, the trace {shape}")
        self.spoken += axes
        self.space.hold(axes)
        for ids in axes:
            if len(ids) == 1 and ids is not self.state.unit:
                self.pin(ids, "it becomes an axis of a single position")
        self.state.axes[key] = [self.state.unit if len(a) == 1 else a for a in axes]
        self.state.zero[key] = zero

    def tie(self, a: IntArray, b: IntArray) -> None:
        """Position i of both axes live or die together.

        Raises:
            RuleError: the axes differ in size.
        """
        self.spoken += (a, b)
        try:
            self.space.tie(a, b)
        except ValueError as error:
            raise RuleError(f"{self.node.label}: {error}") from error

    def product(self, flat: IntArray, factors: list[IntArray]) -> None:
        """`flat` is the row-major product of `factors`.

        Raises:
            RuleError: the sizes do not multiply.
        """
        self.spoken += (flat, *factors)
        try:
            self.space.product(flat, factors, self.node.label)
        except ValueError as error:
            raise RuleError(f"{self.node.label}: {error}") from error

    def fresh(self, size: int) -> IntArray:
        """Return new ids (the pinned unit for size 1)."""
        return self.state.unit if size == 1 else self.space.fresh(size)

    def pinned(self, size: int, reason: str) -> IntArray:
        """Return an axis that may not change."""
        return self.state.unit if size == 1 else self.space.pinned(size, f"{self.node.label}: {reason}")

    def pin(self, ids: IntArray, reason: str) -> None:
        """These positions may not be removed."""
        self.spoken.append(ids)
        self.space.pin(ids, f"{self.node.label}: {reason}")

    def pin_input(self, index: int, reason: str) -> None:
        """Nothing of this input may be removed."""
        if self.has(index):
            for ids in self.axes(index):
                self.pin(ids, reason)

    def per_batch(self, index: int, batch: IntArray, reason: str) -> None:
        """The first axis of this input goes with the batch (or holds one entry for all of it); the others stay."""
        if not self.has(index):
            return
        for axis, ids in enumerate(self.axes(index)):
            if axis == 0 and len(ids) == len(batch):
                self.tie(ids, batch)
            else:
                self.pin(ids, reason)
            if axis == 0 and len(ids) not in (1, len(batch)):
                self.pin(batch, reason)

    def role(self, index: int, axis: int, role: Role) -> None:
        """Say what an input's axis does with a channel (matters where the input is a parameter)."""
        if not self.has(index):
            return
        slot = (id(self.node), index)
        if slot in self.state.uses:
            self.state.use_roles[(*slot, axis)] = role
        else:
            self.state.roles[(self.state.view.root(self.node.inputs[index]), axis)] = role

    def zero_point(self, index: int, table: int, axis: int = 0) -> None:
        """Integers of the input `index` stand for 0 where they equal the input `table` (one, or one along `axis`)."""
        if self.has(table):
            key = self.state.view.root(self.node.inputs[table])
            self.state.zero_tables.add(key)
            if self.is_parameter(index):
                self.state.zero_points[self.state.view.root(self.node.inputs[index])] = (key, axis)

    def contract(self, ids: IntArray, *inputs: int) -> None:
        """Positions of `ids` are summed; exact as long as one of the inputs is zero where channels are removed."""
        self.spoken.append(ids)
        if not any(self.is_zero(i) for i in inputs):
            self.normalise(ids)

    def normalise(self, ids: IntArray) -> None:
        """The operator sees which positions of `ids` are there (a mean, a maximum, a norm over them)."""
        self.spoken.append(ids)
        if not self.space.is_born_pinned(ids):
            self.space.mark_inexact(ids)
            if not self.state.normalised or self.state.normalised[-1] is not self.node:
                self.state.normalised.append(self.node)

    def compete(self, ids: IntArray, reason: str) -> bool:
        """Positions of `ids` are weighed against each other: they stay, unless the border of the graph is cut there.

        Returns:
            whether they may go; what is left is then weighed anew.
        """
        if not self.state.boundary.ranks:
            self.pin(ids, reason)
            return False
        self.normalise(ids)
        return True

    def numbers(
        self,
        output: int,
        ids: IntArray,
        column: int | None = None,
        ranked: IntArray | None = None,
        row: int | None = None,
    ) -> None:
        """An output holds numbers of positions on the axis `ids`; see `Ranking`."""
        key = self.node.outputs[output] if output < len(self.node.outputs) else ""
        if key:
            self.state.rank(Ranking(key, ids, column, ranked, row))

    def picks_by_number(self, index: int, ids: IntArray, column: int | None = None) -> bool:
        """Tell whether input `index` (its `column`, or all of it) holds numbers of positions on an axis like `ids`.

        The axes are tied then: what is picked is renumbered with what the numbers were counted on.
        """
        for found in self.state.numbers.get(self.node.inputs[index], ()):
            if len(found.ids) == len(ids) and found.mask[... if column is None else (..., column)].all():
                self.tie(found.ids, ids)
                self.state.number_uses.add((id(self.node), index))
                return True
        return False

    def ignore(self, index: int) -> None:
        """The operator reads no position of this input, only its type or its rank."""
        if self.has(index):
            self.spoken += self.axes(index)

    def forgotten(self) -> str | None:
        """Name the first input axis that the rule neither passed on, tied, summed nor pinned; None where all are."""
        known = {id(ids) for ids in self.spoken}
        for index, key in enumerate(self.node.inputs):
            if not key or key not in self.state.trace.shapes or self._is_own_copy(index):
                continue
            for axis, ids in enumerate(self.axes(index)):
                if id(ids) in known or len(ids) <= 1 or self.space.is_born_pinned(ids):
                    continue
                if not any(np.isin(ids, other).any() for other in self.spoken):
                    return f"axis {axis} of its input '{key}'"
        return None

    def _is_own_copy(self, index: int) -> bool:
        """Tell whether an input is a folded or small constant of which nothing is cut for this node."""
        key, slot = self.node.inputs[index], (id(self.node), index)
        root = self.state.view.root(key)
        parameter = self.state.view.parameters.get(root)
        if parameter is not None:
            return slot not in self.state.uses and is_private(parameter.dims) and not self.state.is_cut_up(root)
        return slot not in self.state.folded and key not in self.state.axes and key in self.state.trace.first.values

    # --- sizes that are spelled out ---------------------------------------------------------------------------

    def attribute_size(self, name: str, ids: IntArray, index: int | None = None) -> None:
        """The attribute equals the number of positions of `ids`."""
        if self.node.attribute(name) is not None and not self.space.is_born_pinned(ids):
            self.state.edits.append(AttributeSize(self.node, name, ids, index))

    def attribute_list(self, name: str, ids: IntArray) -> None:
        """The attribute lists one entry for every position of `ids`.

        Raises:
            RuleError: it has another number of them.
        """
        if len(self.node.attribute(name) or ()) != len(ids):
            raise RuleError(f"{self.node.label}: its '{name}' are not one for every position")
        self.state.edits.append(AttributeList(self.node, name, ids))

    def attribute_value(self, name: str, value: float, ids: IntArray) -> None:
        """The operator computes this attribute from the number of positions of `ids`; the old value must stay."""
        if not self.space.is_born_pinned(ids):
            self.state.edits.append(AttributeValue(self.node, name, value, ids))

    def entry_size(self, index: int, entry: int, ids: IntArray) -> None:
        """Entry `entry` of the integer input equals the number of positions of `ids`."""
        if not self.space.is_born_pinned(ids):
            self.state.edits.append(EntrySize(self.node, index, entry, ids))

    def listed_size(self, attribute: str, index: int, entry: int, ids: IntArray) -> None:
        """Like `attribute_size` or `entry_size`, whichever this operator version has."""
        if self.node.attribute(attribute) is not None:
            self.attribute_size(attribute, ids, entry)
        elif self.has(index):
            self.entry_size(index, entry, ids)

    def equal_split(self, axis: int, parts: list[IntArray]) -> None:
        """A Split that spells no sizes must spell them once its parts differ."""
        if not all(self.space.is_born_pinned(ids) for ids in parts):
            self.state.edits.append(EqualSplit(self.node, axis, tuple(parts)))

    def indices(self, index: int, ids: IntArray) -> None:
        """The input holds positions on the axis `ids`."""
        if not self.space.is_born_pinned(ids):
            self.state.edits.append(Indices(self.node, index, ids))

    def selection(self, axis: int, ids: IntArray, positions: IntArray) -> None:
        """A strided Slice takes these positions of the axis `ids`."""
        if not self.space.is_born_pinned(ids):
            self.state.edits.append(Selection(self.node, axis, ids, positions))
