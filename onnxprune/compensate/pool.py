"""Feeds of steps that are kept with what the original gives on them, so that it is asked once for many steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxprune.compensate.draws import Draws
from onnxprune.compensate.objective import feed_bytes
from onnxprune.compensate.slopes import Slopes
from onnxprune.statistics.feeds import Feed

PASSES = 8
"""Varied samples are drawn so often before they come again; as many copies of each do as well as new ones."""
MEMORY = 1 << 28
"""Bytes that kept feeds take; where one pass over the samples takes more, none are kept."""


@dataclass(eq=False)
class Pool:
    """Where steps take their feeds from: drawn as long as the pool is not full, then from it, pass after pass.

    size: how many feeds it keeps; 0: none.
    """

    draws: Draws
    answered: Callable[[list[Feed]], list[Feed]]
    size: int
    _kept: list[Feed] = field(default_factory=list)
    _order: list[int] = field(default_factory=list)

    @staticmethod
    def of(draws: Draws, slopes: Slopes, passes: int = PASSES, memory: int = MEMORY) -> Pool:
        """Return a pool of as many passes over the samples as fit into the memory, one where no two would differ.

        Args:
            passes: 0: every step draws its samples anew.
        """
        (feed,) = slopes.answered([draws.example()])
        once = -(-draws.samples // draws.batch)
        fits = memory // max(1, feed_bytes(feed))
        wanted = once * (passes if draws.stacked else 1)
        size = min(wanted, fits) if fits >= once else 0
        return Pool(draws, slopes.answered, size - size % draws.runs)

    def step(self, generator: np.random.Generator) -> list[Feed]:
        """Return the feeds of one step."""
        if not self.size:
            return self.draws.step(generator)
        if len(self._kept) < self.size:
            feeds = self.answered(self.draws.step(generator))
            self._kept += feeds
            return feeds
        return [self._kept[self._next(generator)] for _ in range(self.draws.runs)]

    def skip(self, steps: int) -> None:
        """Go on behind so many steps: what is kept is no part of an order."""

    def asked(self, steps: int) -> int:
        """Return how many feeds the original is asked for in so many steps."""
        feeds = steps * self.draws.runs
        return min(feeds, self.size) if self.size else feeds

    def _next(self, generator: np.random.Generator) -> int:
        if not self._order:
            self._order = generator.permutation(len(self._kept)).tolist()
        return self._order.pop()
