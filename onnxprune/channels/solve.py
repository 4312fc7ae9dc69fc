"""Resolve ids, ties, products and pins into classes: what is free, what follows, what stays and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np

from onnxprune.channels.space import Product, Space, connected, stars
from onnxprune.types import BoolArray, IntArray

CONFLICT = "one axis is split in two ways that cannot both hold"


@dataclass(frozen=True, eq=False)
class Solution:
    """Classes of ids.

    label: (ids,) class of each id; a class is named by its smallest id.
    pinned: (ids,) by class: may not be removed.
    reason: (ids,) by class: number of the reason in `reasons`, -1 where there is none.
    products: those with at least two factors that are not pinned; ids are classes.
    derived: (ids,) by class: follows from the factors of a product.
    inexact: (ids,) by class: a normalisation sees it.
    """

    label: IntArray
    pinned: BoolArray
    reason: IntArray
    reasons: list[str]
    products: list[Product]
    derived: BoolArray
    inexact: BoolArray

    def close(self, removed: BoolArray) -> BoolArray:
        """Add what follows from removed factors.

        Args:
            removed: (ids,) by class.

        Returns:
            (ids,) by class, flats of removed factors included.
        """
        closed = removed.copy()
        for _ in range(len(self.products) + 1):
            before = int(closed.sum())
            for product in self.products:
                closed[product.flat] |= _outer_or([closed[f] for f in product.factors])
            if int(closed.sum()) == before:
                break
        return closed

    @cached_property
    def ancestors(self) -> tuple[IntArray, IntArray]:
        """Pairs (derived class, free or pinned class that it follows from), sorted by the first."""
        if not self.products:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty
        child = np.concatenate([p.flat for p in self.products for _ in p.factors])
        parent = np.concatenate([c for p in self.products for c in coordinates(p)])
        child, parent = self._unique_pairs(child, parent)
        for _ in range(len(self.products)):
            nested = self.derived[parent]
            if not nested.any():
                break
            rows, matches = join(parent[nested], child)
            child, parent = self._unique_pairs(
                np.concatenate([child[~nested], child[nested][rows]]),
                np.concatenate([parent[~nested], parent[matches]]),
            )
        return child, parent

    def _unique_pairs(self, child: IntArray, parent: IntArray) -> tuple[IntArray, IntArray]:
        codes = sorted_unique(np.sort(child * len(self.label) + parent))
        return codes // len(self.label), codes % len(self.label)


def sorted_unique(values: IntArray) -> IntArray:
    """Drop repeats of a sorted array (np.unique hashes integers, which is slower here)."""
    return values[np.r_[True, values[1:] != values[:-1]]] if len(values) else values


def join(keys: IntArray, sorted_table: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs (row of keys, row of the sorted table) with equal values."""
    low = np.searchsorted(sorted_table, keys, "left")
    high = np.searchsorted(sorted_table, keys, "right")
    counts = high - low
    rows = np.repeat(np.arange(len(keys)), counts)
    starts = np.repeat(low - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) if len(keys) else low
    return rows, starts + np.arange(len(rows))


def coordinates(product: Product) -> list[IntArray]:
    """For each factor, its id at every flat position."""
    indices = np.indices(product.shape, sparse=False).reshape(len(product.shape), -1)
    return [factor[index] for factor, index in zip(product.factors, indices, strict=True)]


def _outer_or(masks: list[BoolArray]) -> BoolArray:
    return np.asarray(reduce(np.logical_or.outer, masks)).reshape(-1)


def solve(space: Space) -> Solution:
    """Resolve a space.

    Rounds of union, pins and products until nothing changes: a pinned flat position pins its factors; a product with
    one factor that is not pinned is a tie; a flat class at two positions ties the factors coordinate by coordinate;
    one flat split in two ways gets the common refinement of both.
    """
    ties = stars(space.ties)
    products = list(space.products)
    pins = list(space.pins)
    count = space.count
    label = None
    while True:
        label = connected(count, ties, label)
        products = [Product(label[p.flat], tuple(label[f] for f in p.factors), p.origin) for p in products]
        pinned, reason = _pin(count, label, pins, products)
        products, new_ties = _simplify(products, pinned, pins, reason)
        refined, count = _refine(products, count)
        if refined is not None:
            products = refined
            ties = new_ties
            continue
        new_ties += _coordinate_ties(products, pinned, pins)
        new_ties = [(a[a != b], b[a != b]) for a, b in new_ties]
        new_ties = [t for t in new_ties if len(t[0])]
        if not new_ties and len(pins) == len(reason.sources):
            break
        ties = new_ties
    return _finish(space, label, pinned, reason, products, pins)


@dataclass(frozen=True, eq=False)
class _Reasons:
    """Which pin made a class stay."""

    number: IntArray
    sources: list[str]


def _pin(
    count: int, label: IntArray, pins: list[tuple[IntArray, str]], products: list[Product]
) -> tuple[BoolArray, _Reasons]:
    """Spread pins over classes and products."""
    number = np.full(count, -1, dtype=np.int64)
    if pins:  # of several pins of a class the first one counts: it is written last
        places = np.repeat(np.arange(len(pins)), [len(ids) for ids, _ in pins])
        number[label[np.concatenate([ids for ids, _ in pins])[::-1]]] = places[::-1]
    changed = True
    while changed:
        changed = False
        for product in products:
            flat = number[product.flat].reshape(product.shape)
            stuck = None
            for axis in _telling_first(product, number):
                factor = product.factors[axis]
                others = tuple(a for a in range(flat.ndim) if a != axis)
                seen = flat.max(axis=others)
                newly = (number[factor] < 0) & (seen >= 0)
                if newly.any():
                    number[factor[newly]] = seen[newly]
                    changed = True
                held = number[factor].reshape([-1 if a == axis else 1 for a in range(flat.ndim)])
                stuck = held if stuck is None else np.where((stuck >= 0) & (held >= 0), stuck, -1)
            if stuck is None:
                continue  # no axis tells anything
            newly_flat = (flat < 0) & (stuck >= 0)
            if newly_flat.any():
                number[product.flat[newly_flat.reshape(-1)]] = stuck[newly_flat]
                changed = True
    return number >= 0, _Reasons(number, [reason for _, reason in pins])


def _telling_first(product: Product, number: IntArray) -> list[int]:
    """Order factors by how much the reason of their pin says: an axis born pinned (gates, a kernel) says least."""
    return sorted(
        range(len(product.factors)),
        key=lambda axis: (
            bool((product.factors[axis] == product.factors[axis][0]).all()),
            int(number[product.factors[axis][0]]),
        ),
    )


def _simplify(
    products: list[Product], pinned: BoolArray, pins: list[tuple[IntArray, str]], reason: _Reasons
) -> tuple[list[Product], list[tuple[IntArray, IntArray]]]:
    """A product with at most one factor that may change is a tie."""
    kept: list[Product] = []
    ties: list[tuple[IntArray, IntArray]] = []
    seen: set[tuple[bytes, ...]] = set()
    for product in products:
        loose = [axis for axis, factor in enumerate(product.factors) if not pinned[factor].all()]
        if len(loose) <= 1:
            for ids in (product.flat, *product.factors):
                _hold(ids, pinned, pins, reason)
            if loose:
                ties.append((product.flat, coordinates(product)[loose[0]]))
            continue
        key = (product.flat.tobytes(), *(f.tobytes() for f in product.factors))
        if key not in seen:
            seen.add(key)
            kept.append(product)
    return kept, ties


def _hold(ids: IntArray, pinned: BoolArray, pins: list[tuple[IntArray, str]], reason: _Reasons) -> None:
    """Keep the pins that a product brought, for it is dropped."""
    held = ids[pinned[ids]]
    for number in np.unique(reason.number[held]):
        pins.append((held[reason.number[held] == number], reason.sources[int(number)]))


def _refine(products: list[Product], count: int) -> tuple[list[Product] | None, int]:
    """Give products of one flat but different shapes their common refinement, if there is one."""
    by_flat: dict[bytes, list[Product]] = {}
    for product in products:
        by_flat.setdefault(product.flat.tobytes(), []).append(product)
    result: list[Product] = []
    changed = False
    for family in by_flat.values():
        shapes = {p.shape for p in family}
        shape = common_refinement(list(shapes)) if len(shapes) > 1 else None
        if shape is None:
            result += family
            continue
        changed = True
        factors = []
        for size in shape:
            factors.append(np.arange(count, count + size, dtype=np.int64))
            count += size
        result.append(Product(family[0].flat, tuple(factors), family[0].origin))
        for product in family:
            result += _split_factors(product, shape, factors)
    return (result if changed else None), count


def _split_factors(product: Product, shape: tuple[int, ...], factors: list[IntArray]) -> list[Product]:
    """Each factor is the product of the refined factors that it spans."""
    found = []
    position = 0
    for factor in product.factors:
        first = position
        size = 1
        while size < len(factor):
            size *= shape[position]
            position += 1
        found.append(Product(factor, tuple(factors[first:position]), product.origin))
    return found


def common_refinement(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the coarsest shape of which all shapes are groupings of neighbours, None if there is none."""
    strides = sorted({math.prod(shape[axis:]) for shape in shapes for axis in range(len(shape) + 1)})
    if any(b % a for a, b in pairwise(strides)):
        return None
    return tuple(b // a for a, b in pairwise(strides))[::-1]


def _coordinate_ties(
    products: list[Product], pinned: BoolArray, pins: list[tuple[IntArray, str]]
) -> list[tuple[IntArray, IntArray]]:
    """A flat class at two positions, of one or several products, ties their factors coordinate by coordinate."""
    tables: dict[int, list[tuple[IntArray, list[IntArray]]]] = {}
    for product in products:
        loose = [axis for axis, factor in enumerate(product.factors) if not pinned[factor].all()]
        every = coordinates(product)
        tables.setdefault(len(loose), []).append((product.flat, [every[axis] for axis in loose]))
    ties: list[tuple[IntArray, IntArray]] = []
    flats: dict[int, IntArray] = {}
    for rank, rows in tables.items():
        flat = np.concatenate([r[0] for r in rows])
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        first = np.searchsorted(flat, flat, "left")
        repeated = first != np.arange(len(flat))
        flats[rank] = sorted_unique(flat)
        if not repeated.any():
            continue
        for axis in range(rank):
            factor = np.concatenate([r[1][axis] for r in rows])[order]
            ties.append((factor[repeated], factor[first[repeated]]))
    _pin_conflicts(products, flats, pinned, pins)
    return ties


def _pin_conflicts(
    products: list[Product], flats: dict[int, IntArray], pinned: BoolArray, pins: list[tuple[IntArray, str]]
) -> None:
    """Classes that belong to products of different rank stay, with all their factors."""
    ranks = sorted(flats)
    for number, rank in enumerate(ranks):
        for other in ranks[number + 1 :]:
            shared = np.intersect1d(flats[rank], flats[other])
            shared = shared[~pinned[shared]]
            if len(shared):
                touched = [p for p in products if np.isin(p.flat, shared).any()]
                origins = sorted({p.origin for p in touched})
                pins.append((shared, f"{', '.join(origins[:2])}: {CONFLICT}"))


def _finish(
    space: Space,
    label: IntArray,
    pinned: BoolArray,
    reason: _Reasons,
    products: list[Product],
    pins: list[tuple[IntArray, str]],
) -> Solution:
    derived = np.zeros(len(label), dtype=bool)
    for product in products:
        derived[product.flat] = True
    inexact = np.zeros(len(label), dtype=bool)
    for ids in space.inexact:
        inexact[label[ids]] = True
    solution = Solution(label, pinned, reason.number, [r for _, r in pins], products, derived, inexact)
    child, parent = solution.ancestors
    inexact[parent[inexact[child]]] = True
    return solution
