"""Which positions of a tensor another one consists of, found by its values."""

from __future__ import annotations

import numpy as np

from onnxprune.types import Array, IntArray

PROBES = 24
"""Values looked at for each position of an axis."""


def kept_positions(before: Array, after: Array) -> list[IntArray] | None:
    """Return the positions of each axis of `before` that `after` is made of: after = before[ix(kept ..)].

    Values that occur once in `before` say where they were; every position needs one. None: it is no such part, or its
    values do not tell (constants, refitted weights).
    """
    if before.ndim != after.ndim or before.dtype != after.dtype or not after.size or before.dtype.kind not in "fiu":
        return None
    if any(new > old for old, new in zip(before.shape, after.shape, strict=True)):
        return None
    values, places, counts = np.unique(before.reshape(-1), return_index=True, return_counts=True)
    alone = counts == 1
    values, places = values[alone], places[alone]
    if not len(values):
        return None
    kept: list[IntArray] = []
    for axis, size in enumerate(after.shape):
        if size == before.shape[axis]:
            kept.append(np.arange(size))
            continue
        found = _along(axis, before.shape, after, values, places)
        if found is None:
            return None
        kept.append(found)
    return kept if np.array_equal(before[np.ix_(*kept)], after) else None


def _along(axis: int, shape: tuple[int, ...], after: Array, values: Array, places: IntArray) -> IntArray | None:
    """Return (kept,) ascending positions of one axis; None where a position has no value that tells."""
    rows = np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)
    step = max(1, rows.shape[1] // PROBES)
    probed = rows[:, ::step]
    index = np.minimum(np.searchsorted(values, probed), len(values) - 1)
    known = values[index] == probed
    if not known.any(axis=1).all():
        return None
    where = np.unravel_index(places[index], shape)[axis]
    first = np.argmax(known, axis=1)
    positions: IntArray = where[np.arange(len(rows)), first]
    return positions if np.all(np.diff(positions) > 0) else None
