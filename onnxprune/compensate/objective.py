"""A distance between two networks as what a long walk makes smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.compensate.slopes import Cut, Judged, Slopes, Teacher
from onnxprune.compensate.stream import LABELS
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed, input_specs
from onnxprune.types import Array

REMEMBERED_BYTES = 1 << 28
"""What the original gives on held-out samples is kept up to so much; beyond that it is asked again for every look."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A distance between two networks, and the feeds that are held out to judge it."""

    slopes: Slopes
    held: Sequence[Feed]

    @staticmethod
    def over(slopes: Slopes, held: Sequence[Feed]) -> HeldOut:
        """Return the distance judged on feeds, what the original gives on them found out once."""
        answered: list[Feed] = []
        for feed in held:
            answered += slopes.answered([feed])
            if sum(feed_bytes(one) for one in answered) > REMEMBERED_BYTES:
                break
        return HeldOut(slopes, [*answered, *held[len(answered) :]])

    @property
    def weights(self) -> Mapping[str, Array]:
        """Weights to begin with."""
        return self.slopes.gradient.weights

    @property
    def matrices(self) -> Mapping[str, tuple[int, int, int]]:
        """Those that are matrices: (blocks, rows, columns)."""
        return self.slopes.gradient.matrices

    def mean(self, weights: Mapping[str, Array], feeds: Sequence[Feed], share: float = 1.0) -> list[Array]:
        """Return the gradient by every weight, averaged over feeds.

        Args:
            share: how much tensors inside count.
        """
        gradient = self.slopes.gradient
        helping = {gradient.help: np.array([share], np.float32)} if gradient.helpers else {}
        return self.slopes.mean({**weights, **helping}, feeds)

    def held_out(self, weights: Mapping[str, Array]) -> Judged:
        """Return the loss on held-out feeds."""
        return self.slopes.over(weights, self.held)


def feed_bytes(feed: Feed) -> int:
    """Return how much memory a feed takes."""
    return sum(array.nbytes for array in feed.values())


class Asked(Teacher):
    """An original that is shown feeds with more in them than it reads, labels among them."""

    def __init__(self, model: Model, cuts: Mapping[str, Cut], provider: str | None = None) -> None:
        super().__init__(model, cuts, provider)
        self._reads = {spec.name for spec in input_specs(model.proto)}

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """Return the compared tensors, what was cut left out."""
        return super().__call__(self._read(feed))

    def seconds(self, feed: Feed) -> float:
        """Return the predicted CPU seconds of a run."""
        return super().seconds(self._read(feed))

    def _read(self, feed: Feed) -> Feed:
        return {name: array for name, array in feed.items() if name in self._reads}


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
