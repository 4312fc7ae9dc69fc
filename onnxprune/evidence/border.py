"""How inputs and outputs of a compressed model follow from the original's, where its border changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.graph.session import Feeds
from onnxprune.types import Array, IntArray

Positions = Mapping[str, Sequence[IntArray | None]]
"""Tensor -> for every axis the positions that stay, None where all do."""


@dataclass(frozen=True, eq=False)
class Border:
    """What became of inputs and outputs. Everything is said in the original's names and numbers.

    kept: inputs and outputs that lost positions.
    spread: outputs that have their old width, of which only these positions are computed.
    fixed: inputs that always have this value. gone: inputs that the compressed model does not take.
    merged: inputs whose channels became one -> the axis.
    stands: input of ids -> (ids,) the id that stands for each one. numbers: input of ids -> (ids,) its new number.
    outputs: outputs that are left; None: all.
    weighed: outputs that are a Softmax or LogSoftmax over an axis that lost positions -> the axis, and whether of logs.
    """

    kept: Positions = field(default_factory=dict)
    spread: Positions = field(default_factory=dict)
    fixed: Mapping[str, Array] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    merged: Mapping[str, int] = field(default_factory=dict)
    stands: Mapping[str, IntArray] = field(default_factory=dict)
    numbers: Mapping[str, IntArray] = field(default_factory=dict)
    outputs: frozenset[str] | None = None
    weighed: Mapping[str, tuple[int, bool]] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether inputs and outputs are the original's."""
        return not any(vars(self).values())

    def assumed(self, feeds: Feeds) -> dict[str, Array]:
        """Return what the original is run on: inputs for which both models promise the same."""
        found = {**feeds, **{name: value for name, value in self.fixed.items() if name in feeds}}
        for name, axis in self.merged.items():
            if name in found:
                mean = found[name].mean(axis=axis, keepdims=True, dtype=np.float64).astype(found[name].dtype)
                found[name] = np.repeat(mean, found[name].shape[axis], axis=axis)
        for name, table in self.stands.items():
            if name in found:
                found[name] = table[found[name]].astype(found[name].dtype)
        for name, axes in self.kept.items():
            if name in found:
                found[name] = _zeroed(found[name], axes)
        return found

    def narrowed(self, feeds: Feeds) -> dict[str, Array]:
        """Return what the compressed model is run on."""
        found = {name: value for name, value in self.assumed(feeds).items() if name not in self.gone}
        for name, axis in self.merged.items():
            if name in found:
                found[name] = np.take(found[name], [0], axis=axis)
        for name, table in self.numbers.items():
            if name in found:
                found[name] = table[found[name]].astype(found[name].dtype)
        return {name: taken(value, self.kept.get(name)) for name, value in found.items()}

    def restricted(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return of the original's outputs what the compressed model gives."""
        there = {name: value for name, value in outputs.items() if self.outputs is None or name in self.outputs}
        left = {name: taken(value, self.kept.get(name)) for name, value in there.items()}
        for name, (axis, logs) in self.weighed.items():
            if name in left:
                left[name] = _weighed(left[name], axis, logs)
        return self.compared(left)

    def compared(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return of outputs of the restricted form what is compared: what was computed, not what was filled in."""
        return {name: taken(value, self.spread.get(name)) for name, value in outputs.items()}


def taken(value: Array, axes: Sequence[IntArray | None] | None) -> Array:
    """Return the positions of every axis that stay (None: all)."""
    for axis, positions in enumerate(axes or ()):
        if positions is not None and axis < value.ndim:
            value = np.take(value, positions, axis=axis)
    return value


def _weighed(value: Array, axis: int, logs: bool) -> Array:
    """Return shares of what is left, as a softmax over it gives them."""
    plain = np.exp(value.astype(np.float64)) if logs else value.astype(np.float64)
    total = plain.sum(axis=axis, keepdims=True)
    shares = value - np.log(total) if logs else plain / np.where(total > 0, total, 1)
    return np.asarray(shares).astype(value.dtype)


def _zeroed(value: Array, axes: Sequence[IntArray | None]) -> Array:
    """Positions that go are zero in what the original gets."""
    value = value.copy()
    for axis, positions in enumerate(axes):
        if positions is not None and axis < value.ndim:
            others = np.setdiff1d(np.arange(value.shape[axis]), positions)
            value[(slice(None),) * axis + (others,)] = 0
    return value
