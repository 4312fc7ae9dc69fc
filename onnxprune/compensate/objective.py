"""A distance between two networks as what a long walk makes smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune.compensate.draws import Draws
from onnxprune.compensate.slopes import Slopes
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A distance with the samples that are held out for it."""

    slopes: Slopes
    draws: Draws

    @property
    def weights(self) -> Mapping[str, Array]:
        """Weights to begin with."""
        return self.slopes.gradient.weights

    @property
    def matrices(self) -> Mapping[str, tuple[int, int, int]]:
        """Those that are matrices: (blocks, rows, columns)."""
        return self.slopes.gradient.matrices

    def mean(self, weights: Mapping[str, Array], feeds: Sequence[Feed]) -> list[Array]:
        """Return the gradient by every weight, averaged over feeds."""
        return self.slopes.mean(weights, feeds)

    def held_out(self, weights: Mapping[str, Array]) -> float:
        """Return the loss on held-out samples."""
        return self.slopes.loss(weights, self.draws)
