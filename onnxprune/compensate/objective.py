"""A distance between two networks as what a long walk makes smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.compensate.draws import Draws
from onnxprune.compensate.slopes import Cut, Slopes, Teacher
from onnxprune.compensate.stream import LABELS
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed, input_specs
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


class Asked(Teacher):
    """An original that is shown feeds with more in them than it reads, labels among them."""

    def __init__(self, model: Model, cuts: Mapping[str, Cut]) -> None:
        super().__init__(model, cuts)
        self._reads = {spec.name for spec in input_specs(model.proto)}

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """Return the compared tensors, what was cut left out."""
        return super().__call__({name: array for name, array in feed.items() if name in self._reads})


@dataclass(frozen=True)
class Labelled(Slopes):
    """Slopes of a loss that labels may have a part in.

    labels: turns those of a run into what the loss reads.
    """

    labels: Callable[[Array], Array] = lambda array: array

    def _whole(self, weights: Mapping[str, Array], feed: Feed) -> Feed:
        whole = super()._whole(weights, feed)
        if LABELS in whole:
            whole[LABELS] = self.labels(whole[LABELS])
        known = {value.name for value in self.gradient.proto.graph.input}
        return {name: array for name, array in whole.items() if name in known}

    def over(self, weights: Mapping[str, Array], feeds: Sequence[Feed]) -> float:
        """Return the loss, averaged over feeds."""
        names = [self.gradient.loss]
        found = self._side_by_side(lambda feed: self.judge.values(names, self._whole(weights, feed))[0], feeds)
        return float(np.mean(found))
