"""One node with the shapes around it, and its attributes as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, NodeProto, helper

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]


class UnknownShapeError(Exception):
    """A shape that has to be known is not."""


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return attribute values by name; strings are decoded, graphs left out."""
    values: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            continue
        value = helper.get_attribute_value(attribute)
        values[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return values


@dataclass(frozen=True)
class Call:
    """An operator called on tensors of these shapes; an omitted one or an unknown shape is None."""

    op_type: str
    attributes: Attributes
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...] = ()

    def input(self, index: int) -> Shape:
        """Return the shape of an input that must be known."""
        shape = self.optional(index)
        if shape is None:
            raise UnknownShapeError
        return shape

    def optional(self, index: int) -> Shape | None:
        """Return the shape of an input, None where it is missing."""
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def output(self) -> Shape:
        """Shape of the first output, which must be known."""
        if not self.outputs or self.outputs[0] is None:
            raise UnknownShapeError
        return self.outputs[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return one attribute or the default."""
        return self.attributes.get(name, default)
