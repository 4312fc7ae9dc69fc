"""What a criterion sees of one group: the parameter slices that write its channels, read one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from onnxprune.channels.groups import ChannelGroup, Site
from onnxprune.graph.view import View
from onnxprune.score.activity import Activity
from onnxprune.score.stored_numbers import read_weight
from onnxprune.types import Array, FloatArray

BLOCK_ELEMENTS = 1 << 22
"""Weights are cast and reduced in blocks of about this many elements, so that a large tensor needs no second copy."""

Reduction = Callable[[FloatArray, int], FloatArray]
"""(array, axis) -> (positions,): what is left when every other axis is reduced."""


def sum_of_squares(array: FloatArray, axis: int) -> FloatArray:
    """y[p] = sum over all other axes of x^2."""
    view = _three_axes(array, axis)
    squares: FloatArray = np.einsum("apb,apb->p", view, view)
    return squares


def sum_of_absolutes(array: FloatArray, axis: int) -> FloatArray:
    """y[p] = sum over all other axes of |x|."""
    total: FloatArray = np.abs(_three_axes(array, axis)).sum(axis=(0, 2))
    return total


def maximum(array: FloatArray, axis: int) -> FloatArray:
    """y[p] = max over all other axes of |x|."""
    largest: FloatArray = np.abs(_three_axes(array, axis)).max(axis=(0, 2), initial=0.0)
    return largest


COMBINE: dict[Reduction, np.ufunc] = {sum_of_squares: np.add, sum_of_absolutes: np.add, maximum: np.maximum}


@dataclass(eq=False)
class SlicedWeights:
    """The weights of a model and what was already reduced of them, so that groups on one tensor read it once."""

    view: View
    _reduced: dict[tuple[str, int, Reduction], FloatArray] = field(default_factory=dict)

    @cached_property
    def batchnorm_scales(self) -> set[tuple[str, str | None]]:
        """Tensor and use (None where it is not copied per user) of the scale of every BatchNormalization."""
        found: set[tuple[str, str | None]] = set()
        for node in self.view.nodes:
            if node.op_type == "BatchNormalization":
                root = self.view.root(node.inputs[1])
                found |= {(root, None), (root, f"{node.name or node.outputs[0]}:1")}
        return found

    def matrix(self, site: Site) -> FloatArray:
        """Return the slices of a site: (channels, elements)."""
        array = as_float(read_weight(self.view, site.tensor))
        rows = np.moveaxis(array, site.axis, 0).reshape(array.shape[site.axis], -1)
        channels, per_channel = site.positions.shape
        return rows[site.positions.reshape(-1)].reshape(channels, per_channel * rows.shape[1])

    def reduced(self, site: Site, reduction: Reduction) -> FloatArray:
        """Return (channels,): each slice of a site reduced to one number."""
        key = (site.tensor, site.axis, reduction)
        if key not in self._reduced:
            self._reduced[key] = _reduce_in_blocks(read_weight(self.view, site.tensor), site.axis, reduction)
        per_position = self._reduced[key][site.positions]
        combined: FloatArray = COMBINE[reduction].reduce(per_position, axis=1)
        return combined


@dataclass(eq=False)
class Slices:
    """The evidence for one group.

    sites: those that write the channels; if nothing writes them those that read them, or else those that scale them.
    generator: the group's own source of randomness.
    notes: what the criterion had to do otherwise than asked, in words.
    activity: what the model does on data, if there are data.
    """

    group: ChannelGroup
    weights: SlicedWeights
    generator: np.random.Generator
    notes: list[str] = field(default_factory=list)
    activity: Activity | None = None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites that are looked at."""
        for roles in (("writes",), ("reads",), ("scales", "divides")):
            found = tuple(site for site in self.group.sites if site.role in roles)
            if found:
                return found
        return ()

    @property
    def batchnorm_sites(self) -> tuple[Site, ...]:
        """Sites that are the scale of a BatchNormalization."""
        scales = self.weights.batchnorm_scales
        return tuple(s for s in self.group.sites if s.role == "scales" and (s.tensor, s.use) in scales)

    def matrices(self) -> Iterator[FloatArray]:
        """Yield (channels, elements) per site; only one is in memory at a time."""
        return (self.weights.matrix(site) for site in self.sites)

    def total(self, reduction: Reduction, sites: tuple[Site, ...] | None = None) -> FloatArray:
        """Return (channels,): slices of all sites (or of those given) reduced to one number each.

        Every site is divided by its mean over the channels first, so that all writers of a residual group have a say:
        the one with the largest weights would else decide alone.
        """
        per_site = [self.weights.reduced(site, reduction) for site in (self.sites if sites is None else sites)]
        combined: FloatArray = COMBINE[reduction].reduce([over_mean(values) for values in per_site], axis=0)
        return combined


def over_mean(values: FloatArray) -> FloatArray:
    """Divide by the mean of what is finite; values whose mean is 0 come back as they are."""
    finite = values[np.isfinite(values)].astype(np.float64)
    mean = float(finite.mean()) if len(finite) else 0.0
    return values / mean if mean > 0 else values


def as_float(array: Array) -> FloatArray:
    """Return float64 as it is and any other type as float32."""
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _three_axes(array: FloatArray, axis: int) -> FloatArray:
    before = int(np.prod(array.shape[:axis], dtype=np.int64))
    after = int(np.prod(array.shape[axis + 1 :], dtype=np.int64))
    return array.reshape(before, array.shape[axis], after)


def _reduce_in_blocks(array: Array, axis: int, reduction: Reduction) -> FloatArray:
    if array.size <= BLOCK_ELEMENTS:
        return reduction(as_float(array), axis)
    step = max(1, BLOCK_ELEMENTS * len(array) // array.size)
    parts = [reduction(as_float(array[start : start + step]), axis) for start in range(0, len(array), step)]
    if axis == 0:
        return np.concatenate(parts)
    total: FloatArray = COMBINE[reduction].reduce(parts, axis=0)
    return total
