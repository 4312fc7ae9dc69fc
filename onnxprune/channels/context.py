"""What a rule sees of one node: ids of its inputs, and the few things it may say about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.channels.boundary import Ranking
from onnxprune.channels.groups import Role
from onnxprune.channels.node_operands import RuleError, is_private
from onnxprune.channels.space import Axes
from onnxprune.channels.spelled_sizes import SpelledSizes
from onnxprune.channels.state import Contest, Taken
from onnxprune.types import IntArray

__all__ = ["Context", "RuleError"]


class Context(SpelledSizes):
    """One node under analysis: `NodeOperands` reads it, `SpelledSizes` notes its sizes, the rest is said of ids."""

    def set(self, axes: Axes, output: int = 0, zero: bool | Sequence[bool] = False) -> None:
        """Give an output its ids. `zero`: removed positions (of each axis) are exactly zero once parameters are zeroed.

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
        self.state.zero[key] = (zero,) * len(axes) if isinstance(zero, bool) else tuple(zero)

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
        self.summed(ids, any(self.is_zero_along(i, ids) for i in inputs))

    def summed(self, ids: IntArray, zero: bool) -> None:
        """Positions of `ids` are summed; exact where what is summed is zero at those that are removed."""
        self.spoken.append(ids)
        if not zero:
            self.normalise(ids)

    def normalise(self, ids: IntArray) -> None:
        """The operator sees which positions of `ids` are there (a mean, a maximum, a norm over them)."""
        self.spoken.append(ids)
        if not self.space.is_born_pinned(ids):
            self.space.mark_inexact(ids)
            if not self.state.normalised or self.state.normalised[-1] is not self.node:
                self.state.normalised.append(self.node)

    def compete(self, ids: IntArray, reason: str) -> bool:
        """Positions of `ids` are weighed against each other: they stay, unless the border of the graph is cut there, or
        they turn out to be experts of a mixture.

        Returns:
            whether they may go; what is left is then weighed anew.
        """
        if self.state.boundary.ranks:
            self.normalise(ids)
            return True
        if len(ids) not in self.state.stack_sizes or self.space.is_born_pinned(ids):
            self.pin(ids, reason)
            return False
        self.normalise(ids)
        self.state.contests.append(Contest(ids, self.node, f"{self.node.label}: {reason}"))
        return True

    def takes(self, ids: IntArray, count: int, needs: bool = True) -> None:
        """The operator takes the best `count` positions of `ids`; `needs`: it cannot take fewer."""
        self.state.taken.append(Taken(ids, count, self.node, needs))

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

    def counts_positions(self, index: int, ids: IntArray) -> None:
        """Tie `ids` to the axis on which input `index` holds numbers of positions, if it holds nothing else."""
        for found in self.state.numbers.get(self.node.inputs[index], ()):
            if len(found.ids) == len(ids) and found.mask.all():
                self.tie(found.ids, ids)

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
