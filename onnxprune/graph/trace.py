"""Concrete shapes of every tensor and the values of all shape arithmetic, without touching a weight.

Each symbolic dimension gets a concrete size; every node is inferred alone, in order, with what is known about its
inputs, and small integer nodes are evaluated on the way. A second assignment of sizes shows which numbers are dynamic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.graph.concrete_run import ConcreteRun, equal, run
from onnxprune.graph.sizes import (
    Sizes,
    assignments,
    axis_symbols,
    check_input_shapes,
    kinds_of,
    likely,
    ones,
    size_of,
    small,
)
from onnxprune.graph.view import View
from onnxprune.types import Array, BoolArray

Shape = tuple[int, ...]
Seen = Mapping[str, tuple[int | None, ...]]

LARGE = 1 << 25
"""Elements of a tensor from which smaller sizes are tried."""

TRIALS, NODES = 64, 40_000
"""Runs, and nodes in all runs, that a search for sizes may cost."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Shapes and folded values under two assignments; `first` is the one that shapes and ids refer to."""

    first: ConcreteRun
    second: ConcreteRun

    @property
    def shapes(self) -> dict[str, Shape]:
        """Tensor key -> concrete shape; a tensor whose rank is unknown is missing."""
        return self.first.shapes

    @cached_property
    def values(self) -> dict[str, Array]:
        """Folded tensors whose value does not depend on a dynamic size."""
        return {
            key: value
            for key, value in self.first.values.items()
            if key in self.second.values and equal(value, self.second.values[key])
        }

    def dynamic(self, key: str) -> BoolArray:
        """Return (rank,) True where the size of an axis depends on the input's sizes."""
        shape, other = self.first.shapes[key], self.second.shapes.get(key, ())
        if len(shape) != len(other):
            return np.ones(len(shape), dtype=bool)
        return np.array([a != b for a, b in zip(shape, other, strict=True)], dtype=bool)

    @property
    def failures(self) -> int:
        """How many tensors of both runs have no known shape, or one that does not go with the others."""
        return len(self.first.failures) + len(self.second.failures)

    def data_type(self, key: str) -> int:
        """Return the `onnx.TensorProto` data type, 0 where it is unknown."""
        known = self.first.types.get(key)
        return int(known.tensor_type.elem_type) if known is not None else 0


def trace(
    view: View,
    input_shapes: Mapping[str, Shape] | None = None,
    seen: Seen | None = None,
) -> Trace:
    """Trace a view under two assignments of its dynamic sizes.

    Sizes that tell axes apart come first; where they do not go together somewhere in the graph, those of data that were
    seen, then the usual ones of images and signals, then those that the graph itself spells where they do not.

    Args:
        view: the model.
        input_shapes: graph input -> full shape, fixes these sizes (the command line's --input-shape).
        seen: graph input -> shape of data that the model takes, None where samples are counted.

    Raises:
        UsageError: an input shape names no input or does not fit its rank or fixed sizes.
    """
    fixed = check_input_shapes(view, dict(input_shapes or {}))
    first, *others = assignments(view)
    attempt = _Attempt(view, fixed)
    best = attempt(first)
    if not best.failures:
        return best if best.first.largest <= LARGE else _smaller(best, attempt, small(view, first))
    if seen:
        best = _settled(min(best, attempt(likely(view, first, seen)), key=_badness), attempt)
    for pair in others:
        if not best.failures:
            return best
        best = min(best, attempt(pair, best), key=_badness)
    best = _settled(best, attempt)
    for pair in ones(view) if best.failures else ():
        best = min(best, attempt(pair, best), key=_badness)
    return best


@dataclass(frozen=True)
class _Attempt:
    """Traces a view at sizes that were not given."""

    view: View
    fixed: dict[str, int]

    def __call__(self, pair: tuple[Sizes, Sizes], best: Trace | None = None) -> Trace:
        """Return the trace at a pair of assignments; where the first run is no better than another's, that is all."""
        one, two = (dict(sizes) | self.fixed for sizes in pair)
        first = run(self.view, one)
        if best is not None and len(first.failures) >= _badness(best):
            return Trace(first, first)
        same = self._same(one, two) and not first.guessed
        return Trace(first, first if same else run(self.view, two, first))

    def _same(self, one: Sizes, two: Sizes) -> bool:
        return all(size_of(symbol, one) == size_of(symbol, two) for symbol in self.symbols)

    @property
    def symbols(self) -> list[str]:
        """Dynamic sizes of the inputs."""
        found = (symbol for key in self.view.inputs for symbol in axis_symbols(self.view, key))
        return list(dict.fromkeys(symbol for symbol in found if isinstance(symbol, str)))


def _badness(found: Trace) -> int:
    return found.failures


def _smaller(found: Trace, attempt: _Attempt, pair: tuple[Sizes, Sizes]) -> Trace:
    """Return the trace at small sizes where these go together too and make the largest tensor much smaller."""
    other = attempt(pair)
    return other if not other.failures and other.first.largest < found.first.largest // 2 else found


def _settled(found: Trace, attempt: _Attempt) -> Trace:
    """Hold sizes at what the graph spells where they clash, one after the other, as long as that mends something."""
    kinds = kinds_of(attempt.view)
    free = sorted((s for s in attempt.symbols if s not in attempt.fixed), key=lambda s: kinds.get(s) == "batch")
    left = min(TRIALS, max(8, NODES // max(1, len(attempt.view.nodes))))
    while free and left > 0 and found.failures and (found.first.clashes or found.second.clashes):
        best, held = found, ""
        for symbol, size in list(_holds(found, free))[:left]:
            left -= 1
            trial = attempt(({**found.first.sizes, symbol: size}, {**found.second.sizes, symbol: size}), best)
            if _badness(trial) < _badness(best):
                best, held = trial, symbol
            if not best.failures:
                return best
        if best is found:
            break
        found, free = best, [symbol for symbol in free if symbol != held]
    return found


def _holds(found: Trace, free: list[str]) -> Iterator[tuple[str, int]]:
    """Yield (symbol, size) pairs to try for the first clash: symbols that may be part of it first."""
    side = found.first if found.first.clashes else found.second
    clash = side.clashes[0]
    for symbol in sorted(free, key=lambda name: not clash.holds(size_of(name, side.sizes))):
        now = size_of(symbol, side.sizes)
        sizes = [*clash.quotients(now), *clash.spelled()]
        if side is found.second:
            sizes.insert(0, size_of(symbol, found.first.sizes))
        yield from ((symbol, size) for size in dict.fromkeys(sizes) if size != now)
