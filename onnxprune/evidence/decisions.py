"""Samples whose top-1 class changed, the most confident first, with both answers; small pictures of them if images."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.evidence.kinds import SCORES, Kind
from onnxprune.graph.session import Feeds
from onnxprune.types import Array

MOST = 12
"""Decisions that are kept."""
SIDE = 48
"""Pixels of the longer side of a picture, about."""
LEAST_SIDE = 8


@dataclass(frozen=True, eq=False)
class Decision:
    """One sample of one output.

    before, after: classes. confidence: of the original's answer, and of the other model's, 0 to 1.
    picture: (height, width) or (height, width, 3) bytes of the first input that is an image.
    """

    output: str
    sample: int
    before: int
    after: int
    confidence: tuple[float, float]
    picture: Array | None = None


class Decisions:
    """Collects the decisions that changed."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = {name: kind for name, kind in kinds.items() if kind.name == SCORES and kind.axis is not None}
        self._found: list[tuple[float, int, Decision]] = []
        self._seen = 0
        self.counts: dict[str, int] = {}

    def add(self, feeds: Feeds, outputs: Mapping[str, Array], others: Mapping[str, Array]) -> None:
        """Take the outputs of one feed in."""
        size = max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
        for name, kind in self._kinds.items():
            if name in outputs and name in others and outputs[name].shape == others[name].shape:
                self._compare(name, kind, feeds, outputs[name], others[name], size)
        self._seen += size

    def _compare(self, name: str, kind: Kind, feeds: Feeds, one: Array, two: Array, size: int) -> None:
        rows = [_rows(values, kind, size) for values in (one, two)]
        if rows[0] is None or rows[1] is None:
            return
        first, second = rows[0], rows[1]
        before, after = first.argmax(1), second.argmax(1)
        sound = np.isfinite(first.max(1)) & np.isfinite(second.max(1))
        for place in np.flatnonzero((before != after) & sound):
            self.counts[name] = self.counts.get(name, 0) + 1
            sure = float(first[place, before[place]]), float(second[place, after[place]])
            number = self._seen + int(place)
            if len(self._found) >= MOST and sure[0] <= self._found[0][0]:
                continue
            picture = _picture(feeds, int(place), size)
            told = Decision(name, number, int(before[place]), int(after[place]), sure, picture)
            heapq.heappush(self._found, (sure[0], -number, told))
            if len(self._found) > MOST:
                heapq.heappop(self._found)

    def results(self, outputs: set[str]) -> tuple[Decision, ...]:
        """Return what changed in these outputs, the most confident first."""
        ordered = sorted(self._found, key=lambda item: (-item[0], -item[1]))
        return tuple(told for _, _, told in ordered if told.output in outputs)


def _rows(values: Array, kind: Kind, size: int) -> Array | None:
    """Return (samples, classes) probabilities; None where a sample has more than one decision, or none."""
    moved = np.moveaxis(values, kind.axis or 0, -1)
    if moved.ndim < 2 or moved.shape[-1] < 2 or moved.shape[0] != size or moved.size != size * moved.shape[-1]:
        return None
    rows = moved.reshape(size, -1).astype(np.float64)
    if kind.squash in ("softmax", "sigmoid"):
        return rows
    with np.errstate(all="ignore"):
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _picture(feeds: Feeds, place: int, size: int) -> Array | None:
    """Return a small picture of a sample, between its darkest and its brightest value."""
    for values in feeds.values():
        if values.ndim != 4 or values.shape[0] != size or values.dtype.kind not in "fu":
            continue
        image = values[place].astype(np.float64)
        if image.shape[0] in (1, 3):
            image = np.moveaxis(image, 0, -1)
        if image.shape[-1] not in (1, 3) or min(image.shape[:2]) < LEAST_SIDE:
            continue
        step = max(1, round(max(image.shape[:2]) / SIDE))
        small = np.nan_to_num(image[::step, ::step])
        low, high = small.min(), small.max()
        grey = np.round((small - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
        return np.asarray(grey[..., 0] if grey.shape[-1] == 1 else grey)
    return None
