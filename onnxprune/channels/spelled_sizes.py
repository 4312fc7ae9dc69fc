"""The sizes that a node spells out, in attributes and constants: what a rule says of them is mended after a cut."""

from __future__ import annotations

from onnxprune.channels.edits import (
    AttributeList,
    AttributeSize,
    AttributeValue,
    EntrySize,
    EqualSplit,
    Indices,
    Selection,
)
from onnxprune.channels.node_operands import NodeOperands, RuleError
from onnxprune.types import IntArray


class SpelledSizes(NodeOperands):
    """One node, and where it spells sizes out."""

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
