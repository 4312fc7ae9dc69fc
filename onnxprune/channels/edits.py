"""What an operator spells out about sizes, as data: the rewrite evaluates these under the chosen removal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.graph.view import Node
from onnxprune.types import BoolArray, IntArray

MOVES = frozenset(
    "Identity Cast Squeeze Unsqueeze Reshape Transpose Flatten Expand Slice Split Gather Concat Tile".split()
)
"""Operators of the default domain that only move (or cast) what they are given."""


@dataclass(frozen=True, eq=False)
class AttributeSize:
    """Attribute `name` (its entry `index`, if it is a list) equals the number of kept positions of `ids`."""

    node: Node
    name: str
    ids: IntArray
    index: int | None = None

    def apply(self, proto: onnx.NodeProto, mask: BoolArray) -> None:
        """Let a copy of the node spell the size that is left; one that does not spell it needs nothing."""
        size = int(np.count_nonzero(mask[self.ids]))
        for attribute in proto.attribute:
            if attribute.name != self.name or size == len(self.ids):
                continue
            if self.index is None:
                attribute.i = size
            else:
                attribute.ints[self.index] = size


@dataclass(frozen=True, eq=False)
class EntrySize:
    """Entry `entry` of the integer input `input` equals the number of kept positions of `ids`."""

    node: Node
    input: int
    entry: int
    ids: IntArray


@dataclass(frozen=True, eq=False)
class Indices:
    """Input `input` (or attribute `name`) holds positions on the axis `ids`; renumbered, removed ones dropped."""

    node: Node
    input: int
    ids: IntArray


@dataclass(frozen=True, eq=False)
class Selection:
    """A strided Slice takes `positions` of the axis `ids`; it becomes a Gather where the kept ones need it."""

    node: Node
    axis: int
    ids: IntArray
    positions: IntArray


@dataclass(frozen=True, eq=False)
class EqualSplit:
    """A Split without sizes; it gets them once its parts differ in size."""

    node: Node
    axis: int
    parts: tuple[IntArray, ...]


@dataclass(frozen=True, eq=False)
class AttributeValue:
    """Attribute `name` gets `value` once `ids` lose positions (a scale that follows from a size by default)."""

    node: Node
    name: str
    value: float
    ids: IntArray

    def apply(self, proto: onnx.NodeProto, mask: BoolArray) -> None:
        """Let a copy of the node spell the value, in the place of one that stands for "by default"."""
        if mask[self.ids].all():
            return
        for attribute in [a for a in proto.attribute if a.name == self.name]:
            proto.attribute.remove(attribute)
        proto.attribute.append(onnx.helper.make_attribute(self.name, self.value))


@dataclass(frozen=True, eq=False)
class AttributeLimit(AttributeValue):
    """Attribute `name`, which is `value`, becomes no larger than what is left of `ids`."""

    def apply(self, proto: onnx.NodeProto, mask: BoolArray) -> None:
        """Let a copy of the node take as many as there are, where it took more."""
        left = int(np.count_nonzero(mask[self.ids]))
        for attribute in [a for a in proto.attribute if a.name == self.name]:
            attribute.CopyFrom(onnx.helper.make_attribute(self.name, min(int(self.value), left)))


@dataclass(frozen=True, eq=False)
class AttributeList:
    """Attribute `name` lists one entry for every position of `ids`; those of removed ones go."""

    node: Node
    name: str
    ids: IntArray

    def apply(self, proto: onnx.NodeProto, mask: BoolArray) -> None:
        """Let a copy of the node list what is left."""
        kept = mask[self.ids]
        for attribute in [a for a in proto.attribute if a.name == self.name]:
            entries = onnx.helper.get_attribute_value(attribute)
            left = [entry for entry, stays in zip(entries, kept, strict=True) if stays]
            attribute.CopyFrom(onnx.helper.make_attribute(self.name, left))


@dataclass(frozen=True, eq=False)
class Shuffle:
    """Three nodes permute the axis `ids`; they become one Gather of the kept `positions`."""

    run: tuple[Node, Node, Node]
    axis: int
    ids: IntArray
    positions: IntArray

    @property
    def node(self) -> Node:
        """The last of the nodes."""
        return self.run[2]


Edit = AttributeSize | AttributeValue | AttributeList | EntrySize | Indices | Selection | EqualSplit | Shuffle
