"""The system of equalities between axes: ids, ties, products and pins, as the rules write them down.

Every position of every axis of every tensor carries an integer id. Rules only record what follows from an operator;
`solve.py` turns the record into classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.types import IntArray

Axes = list[IntArray]
"""Ids of a tensor: one array per axis."""


@dataclass(frozen=True, eq=False)
class Product:
    """Flat position (i, j, ..) is removed exactly when i, or j, .. of its factors is removed."""

    flat: IntArray
    factors: tuple[IntArray, ...]
    origin: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the factors."""
        return tuple(len(f) for f in self.factors)


MAX_AXIS = 1 << 26
"""Positions of one axis; an axis of a network has a thousandth of that."""
MAX_IDS = 1 << 27
"""Positions in all that may be free, eight bytes each."""
SMALLER = "give it smaller sizes (--input-shape for those that are dynamic), or export it again."


@dataclass(eq=False)
class Space:
    """Allocates ids and records what must hold between them."""

    count: int = 0
    ties: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    pins: list[tuple[IntArray, str]] = field(default_factory=list)
    inexact: list[IntArray] = field(default_factory=list)
    held: int = 0
    _held: set[int] = field(default_factory=set)
    _born_pinned: set[int] = field(default_factory=set)

    def fresh(self, size: int) -> IntArray:
        """Return `size` ids that nothing else has."""
        self.count += size
        if self.count > MAX_IDS:
            raise ModelError(f"its tensors have more than {MAX_IDS} positions to follow; {SMALLER}")
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def hold(self, axes: Axes) -> None:
        """Take in axes that were put together (a Concat of a tensor with itself, again and again, doubles)."""
        for ids in axes:
            whole = _owner(ids)
            if id(whole) not in self._held:
                self._held.add(id(whole))
                self.held += whole.size
        if self.held > MAX_IDS:
            raise ModelError(f"its tensors have more than {MAX_IDS} positions to follow; {SMALLER}")

    def pinned(self, size: int, reason: str) -> IntArray:
        """Return an axis that may not change: one id for all its positions."""
        ids = np.broadcast_to(np.int64(self.count), (size,))  # takes no memory, whatever the size
        self._born_pinned.add(self.count)
        self.pins.append((ids[:1], reason))
        self.count += 1
        return ids

    def is_born_pinned(self, ids: IntArray) -> bool:
        """Tell whether an axis was made by `pinned`, or of such axes (or is empty)."""
        if len(ids) == 0:
            return True
        if int(ids[0]) not in self._born_pinned:
            return False
        return ids.strides == (0,) or all(int(i) in self._born_pinned for i in np.unique(ids))

    def tie(self, a: IntArray, b: IntArray) -> None:
        """Position i of `a` and of `b` live or die together.

        Raises:
            ValueError: the axes differ in size.
        """
        if len(a) != len(b):
            raise ValueError(f"axes of {len(a)} and {len(b)} positions cannot be tied")
        if a is not b:
            self.ties.append((a, b))

    def product(self, flat: IntArray, factors: list[IntArray], origin: str) -> None:
        """Record that `flat` is the row-major product of `factors`; factors of size 1 carry nothing."""
        kept = tuple(f for f in factors if len(f) != 1)
        if not kept:
            return
        if len(kept) == 1:
            self.tie(flat, kept[0])
            return
        if int(np.prod([len(f) for f in kept])) != len(flat):
            raise ValueError(f"{len(flat)} positions are no product of {[len(f) for f in kept]}")
        self.products.append(Product(flat, kept, origin))

    def pin(self, ids: IntArray, reason: str) -> None:
        """These positions may not be removed."""
        if len(ids) and not self.is_born_pinned(ids):
            self.pins.append((ids, reason))

    def mark_inexact(self, ids: IntArray) -> None:
        """A normalisation over these positions sees which of them are there."""
        self.inexact.append(ids)


def stars(ties: list[tuple[IntArray, IntArray]]) -> list[tuple[IntArray, IntArray]]:
    """Tie every axis straight to the first of those that it is tied to, one after the other (a residual stream).

    What is tied position by position in a chain is tied so as a star, of which `connected` has few rounds.
    """
    parents: dict[int, IntArray] = {}

    def root(ids: IntArray) -> IntArray:
        found = ids
        while (parent := parents.get(id(found), found)) is not found:
            found = parent
        while ids is not found:
            parent = parents[id(ids)]
            parents[id(ids)] = found
            ids = parent
        return found

    for pair in ties:
        one, two = (root(ids) for ids in pair)
        if one is not two:
            low, high = (one, two) if not len(one) or one[0] <= two[0] else (two, one)
            parents[id(high)] = low
    table = {id(ids): ids for pair in ties for ids in pair}
    return [(ids, root(ids)) for number, ids in table.items() if number in parents]


def connected(count: int, pairs: list[tuple[IntArray, IntArray]], known: IntArray | None = None) -> IntArray:
    """Label the connected components of ids.

    Vectorised union by minimum with pointer jumping (Shiloach and Vishkin 1982, without the parallel machine).

    Args:
        count: number of ids.
        pairs: arrays of equal length, ids to join.
        known: (up to count,) labels of what was joined before.

    Returns:
        (count,) label of each id: the smallest id of its component.
    """
    label = np.arange(count, dtype=np.int64)
    if known is not None:
        label[: len(known)] = known
    if not pairs:
        return label
    a = np.concatenate([p[0] for p in pairs])
    b = np.concatenate([p[1] for p in pairs])
    differ = a != b
    a, b = a[differ], b[differ]
    while len(a):
        one, two = label[a], label[b]
        open_ = one != two
        a, b, one, two = a[open_], b[open_], one[open_], two[open_]
        np.minimum.at(label, np.maximum(one, two), np.minimum(one, two))
        while True:
            jumped = label[label]
            if np.array_equal(jumped, label):
                break
            label = jumped
    return label


def _owner(ids: IntArray) -> IntArray:
    """Return the array whose memory a view keeps alive."""
    while isinstance(ids.base, np.ndarray):
        ids = ids.base
    return ids
