"""What a model does on data, as criteria see it: statistics of everything that readers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from onnxprune.channels.groups import ChannelGroup
from onnxprune.compensate.streamed_sums import streamed
from onnxprune.graph.mapped import is_vast
from onnxprune.graph.session import open_session
from onnxprune.graph.view import View
from onnxprune.score.readings import Reading, find_readings
from onnxprune.statistics.collect import GRAM_BYTES, Statistics, Wanted, collect, observed
from onnxprune.statistics.data import Data
from onnxprune.statistics.moments import ChannelStatistics
from onnxprune.types import Array, FloatArray, IntArray

MAP_SAMPLES = 16
GRAM_SHARE = 0.5
"""Share of the memory for Gram matrices; the rest is for what scores make of them."""


@dataclass(eq=False)
class Activity:
    """Statistics of the data, computed when the first criterion asks for them and kept on disk.

    threads, provider: how the model is run.
    ablation, dropout, curvature, slopes, inverses: what criteria keep from one group to the next.
    given: statistics that were collected elsewhere; None: they are collected here.
    focus: weights and axes whose readings' products are collected; None: all of them.
    """

    view: View
    data: Data
    threads: int = 0
    provider: str | None = None
    memory: int | None = None
    ablation: Any = None
    dropout: Any = None
    curvature: Any = None
    slopes: dict[tuple[str, int], Array] | None = None
    inverses: dict[str, FloatArray] = field(default_factory=dict)
    given: Statistics | None = None
    focus: frozenset[tuple[str, int]] | None = None

    @cached_property
    def all_readings(self) -> list[Reading]:
        """Every activation that a linear operator reads."""
        return find_readings(self.view)

    @cached_property
    def pools(self) -> dict[tuple[str, int], str]:
        """Weight and axis -> what its statistics are counted under: all that the weight reads, as one."""
        places: dict[tuple[str, int], dict[tuple[str, int], None]] = {}
        for reading in self.all_readings:
            places.setdefault(reading.stored, {})[reading.tensor, reading.axis] = None
        names: dict[frozenset[tuple[str, int]], str] = {}
        for found in places.values():
            names.setdefault(frozenset(found), f"{len(names)}:{next(iter(found))[0]}")
        return {stored: names[frozenset(found)] for stored, found in places.items()}

    @cached_property
    def statistics(self) -> Statistics:
        """Mean, size, variance, zeros and Gram matrix of what every weight reads."""
        if self.given is not None:
            return self.given
        return (streamed if is_vast(self.view.model.proto) else collect)(
            self.view.model,
            self.data,
            self.wanted,
            threads=self.threads or None,
            provider=self.provider,
            memory_bytes=int(GRAM_SHARE * self.allowed),
        )

    def expect(self, groups: Iterable[ChannelGroup], *, products: bool) -> None:
        """Take note of what is scored: of a vast model, products of other channels are not worth their place."""
        if is_vast(self.view.model.proto):
            read = {(site.tensor, site.axis) for group in groups for site in group.sites if site.role == "reads"}
            self.focus = frozenset(read if products else ())

    @property
    def wanted(self) -> list[Wanted]:
        """What the statistics are of."""
        focus = self.focus
        pools = None if focus is None else {pool for stored, pool in self.pools.items() if stored in focus}
        names = [(r, self.pools[r.stored]) for r in self.all_readings]
        wanted = [Wanted(r.tensor, r.axis, pools is None or pool in pools, pool) for r, pool in names]
        return list(dict.fromkeys(wanted))

    @property
    def allowed(self) -> int:
        """Bytes that statistics and scores may take."""
        return self.memory or GRAM_BYTES

    @property
    def notes(self) -> list[str]:
        """What the statistics that were asked for had to leave out."""
        found = self.__dict__.get("statistics")
        left_out = len(found.notes) if found is not None else 0
        if not left_out:
            return []
        return [f"{left_out} Gram matrices are left out of the scores: --memory allows no more; raise it"]

    def readings(self, group: ChannelGroup) -> list[tuple[Reading, IntArray]]:
        """Return who reads the channels of a group, and at which positions."""
        places: dict[tuple[str, int], IntArray] = {}
        for site in group.sites:
            if site.role == "reads":
                places.setdefault((site.tensor, site.axis), site.positions)
        found = sorted(number for place in places for number in self._numbers.get(place, ()))
        readings = [self.all_readings[number] for number in found]
        return [(reading, places[reading.stored]) for reading in readings]

    @cached_property
    def _numbers(self) -> dict[tuple[str, int], list[int]]:
        """Weight and axis -> which of all readings are theirs."""
        table: dict[tuple[str, int], list[int]] = {}
        for number, reading in enumerate(self.all_readings):
            table.setdefault(reading.stored, []).append(number)
        return table

    def weights(self, group: ChannelGroup) -> list[tuple[Reading, IntArray]]:
        """Return the weights that read the channels of a group, each once, and at which positions."""
        found = {reading.stored: (reading, positions) for reading, positions in reversed(self.readings(group))}
        return list(reversed(found.values()))

    def of(self, reading: Reading) -> ChannelStatistics:
        """Return the statistics of what the weight reads, all its readers together."""
        return self.statistics[self.pools[reading.stored]]

    def total(self, group: ChannelGroup, value: Callable[[Reading], FloatArray]) -> FloatArray | None:
        """Return (channels,): a value per position, summed over positions and weights; None if nobody reads."""
        found = self.weights(group)
        if not found:
            return None
        return np.asarray(np.sum([value(reading)[positions].sum(axis=1) for reading, positions in found], axis=0))

    def maps(self, reading: Reading) -> Array:
        """Return (samples, positions of the axis, rest): what is read on a few samples."""
        if reading.tensor not in self._maps:
            return np.zeros((0, 0, 0))
        array = self._maps[reading.tensor]
        batch = 0 if reading.axis else 1
        moved = np.moveaxis(array, (batch, reading.axis), (0, 1)) if array.ndim > 1 else array[None]
        return moved.reshape(*moved.shape[:2], -1)

    @cached_property
    def _maps(self) -> dict[str, Array]:
        names = list(dict.fromkeys(reading.tensor for reading in self.all_readings))
        return run_tensors(self, names, MAP_SAMPLES)


def run_tensors(activity: Activity, names: Sequence[str], samples: int) -> dict[str, Array]:
    """Return tensors of the model on the first samples."""
    model = activity.view.model
    feed = next(islice(activity.data.batches(samples), 1))
    inner = [name for name in names if name not in feed]
    session = open_session(
        observed(model, inner), threads=activity.threads or None, provider=activity.provider, folder=model.folder
    )
    return dict(zip(inner, session.values(inner, feed), strict=True)) | {n: feed[n] for n in names if n in feed}
