"""What a rule may ask about its node: ids, shapes and values of inputs, and what is zero."""

from __future__ import annotations

import numpy as np

from onnxprune.channels.space import Axes
from onnxprune.channels.state import State, Use
from onnxprune.graph.trace import Shape
from onnxprune.graph.view import Node
from onnxprune.types import Array, BoolArray, IntArray


class RuleError(Exception):
    """A rule cannot follow its node; the message is the reason with which everything it touches is pinned."""


def is_private(shape: Shape) -> bool:
    """Tell whether a constant is copied per user: at most one axis is longer than 1."""
    return sum(size > 1 for size in shape) <= 1


class NodeOperands:
    """One node under analysis, read."""

    def __init__(self, state: State, node: Node) -> None:
        self.state = state
        self.space = state.space
        self.node = node
        self.spoken: list[IntArray] = []
        self._axes: dict[int, Axes] = {}

    def has(self, index: int) -> bool:
        """Tell whether an optional input is there."""
        return self.node.has_input(index)

    def axes(self, index: int) -> Axes:
        """Return the ids of an input, one array per axis (fresh ones for a small constant, which is copied per use).

        Raises:
            RuleError: the rank of the input is unknown.
        """
        if index not in self._axes:
            self._axes[index] = self._find_axes(index)
        return self._axes[index]

    def _find_axes(self, index: int) -> Axes:
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
        flags = self.state.zero.get(key, ())
        return bool(flags) and all(flags)

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
        return self._known_shape(key, f"input '{key}'")

    def output_shape(self, index: int = 0) -> Shape:
        """Return the concrete shape of an output.

        Raises:
            RuleError: it is unknown.
        """
        return self._known_shape(self.node.outputs[index], "output")

    def _known_shape(self, key: str, what: str) -> Shape:
        if key not in self.state.trace.shapes:
            raise RuleError(f"{self.node.label}: the shape of its {what} is unknown")
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
        flags = self.zeros(index)
        return self.is_parameter(index) or (bool(flags) and all(flags))

    def is_zero_along(self, index: int, ids: IntArray) -> bool:
        """Tell it of the axis `ids` of an input alone; of all of its axes where this is none of them."""
        if not self.has(index):
            return True
        flags = [flag for own, flag in zip(self.axes(index), self.zeros(index), strict=True) if own is ids]
        return all(flags) if flags else self.is_zero(index)

    def zeros(self, index: int) -> tuple[bool, ...]:
        """Tell it of each axis of an input."""
        key = self.node.inputs[index]
        rank = len(self.axes(index))
        value = self.state.trace.first.values.get(key)
        if value is not None and key not in self.state.view.parameters:
            return (not np.any(value),) * rank
        if self.is_parameter(index):
            return (True,) * rank
        return self.state.zero.get(key, (False,) * rank)
