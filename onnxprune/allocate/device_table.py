"""Predicted latency on a device: layers are timed there at some aligned widths, all in one batch.

A layer's time at other widths is t(reads, writes) = t(reads, all) t(all, writes) / t(all, all), each factor linear
between the widths that were measured; layers that read and write the same group have one factor. What a device does
with odd widths (padding to its own multiple) is in these times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx

from onnxprune.allocate.timetable import Timetable
from onnxprune.channels.groups import ChannelGroup, Keep
from onnxprune.graph.trace import Shape
from onnxprune.graph.view import Node
from onnxprune.operators.operator import operator_of
from onnxprune.statistics import cache
from onnxprune.types import Array

POINTS = 8
"""Widths of a group that are measured at most, beside the whole."""
FEW_CALLS = 96
"""Models that are measured at most where each costs a call."""
STEP = 8
"""Widths that are measured are multiples of it."""

Timer = Callable[[Sequence[tuple[onnx.ModelProto, dict[str, Array]]]], list[float]]
"""Models with their inputs -> shortest time of each in ms."""


class _LayerWidths(NamedTuple):
    """What a layer reads and writes, in channels."""

    reads: int
    writes: int


@dataclass
class _Factors:
    """Times of a layer at widths, in ms: with fewer channels read, and with fewer written."""

    whole: _LayerWidths
    ms: float
    reads: dict[int, float] = field(default_factory=dict)
    writes: dict[int, float] = field(default_factory=dict)

    def at(self, widths: _LayerWidths) -> float:
        """Return the time at other widths."""
        if not self.ms:
            return 0.0
        first = _between({**self.reads, self.whole.reads: self.ms}, widths.reads)
        second = _between({**self.writes, self.whole.writes: self.ms}, widths.writes)
        return first * second / self.ms


@dataclass(eq=False)
class DeviceTable(Timetable):
    """Times of layers as a device has them.

    timer: measures a batch. device: what the times are kept under. few: every model costs a call.
    """

    timer: Timer = lambda models: []
    device: str = ""
    few: bool = False

    @property
    def is_known(self) -> bool:
        """Whether layers were measured."""
        return any(found.ms for found in self._factors.values())

    def _time(self, node: Node, shapes: dict[str, Shape]) -> float:
        found = self._factors.get(node.outputs[0])
        return found.at(self._widths(node, shapes)) if found is not None else 0.0

    @cached_property
    def _factors(self) -> dict[str, _Factors]:
        """Every layer's times, by its first output."""
        layers = [node for node in self.channels.view.nodes if operator_of(node) is not None and not node.branches]
        whole = self.channels.shapes({})
        points = POINTS
        while True:
            wanted = [(node, kind, keep) for node in layers for kind, keep in self._cuts(node, points)]
            batch = {self._key(node, keep): (node, keep) for node, _, keep in wanted}
            if not self.few or len(batch) <= FEW_CALLS:
                break
            points //= 2
            if points < 2:
                return {}
        times = self._measured(batch)
        table = {node.outputs[0]: _Factors(self._widths(node, whole), 0.0) for node in layers}
        for node, kind, keep in wanted:
            found, ms = table[node.outputs[0]], times[self._key(node, keep)]
            widths = self._widths(node, self.channels.shapes(keep))
            if kind == "whole":
                found.ms = ms
            elif kind == "reads":
                found.reads[widths.reads] = ms
            else:
                found.writes[widths.writes] = ms
        return table

    def _cuts(self, node: Node, points: int) -> list[tuple[str, Keep]]:
        """Return at which masks a layer is measured: whole, its inputs cut, its outputs cut."""
        reads, writes = self._groups(node)
        found: list[tuple[str, Keep]] = [("whole", {})]
        both = [group for group in writes if any(group is other for other in reads)]
        for kind, groups in (("reads", [] if both else reads), ("writes", writes)):
            for share in range(1, points if groups else 0):
                keep = {group.name: _first(group, round(group.size * share / points)) for group in groups}
                found.append((kind, keep))
        return found

    def _groups(self, node: Node) -> tuple[list[ChannelGroup], list[ChannelGroup]]:
        """Return the groups whose channels a layer reads, and those that it writes."""
        roots = {self.channels.view.root(key) for key in node.inputs if key}
        table: dict[str, list[ChannelGroup]] = {"reads": [], "writes": []}
        for group in self.channels.groups:
            for role, found in table.items():
                if group.active and any(site.role == role and site.tensor in roots for site in group.sites):
                    found.append(group)
        return table["reads"], table["writes"]

    def _widths(self, node: Node, shapes: dict[str, Shape]) -> _LayerWidths:
        """Return how many channels a layer reads and writes, as its weight has them."""
        operator = operator_of(node)
        for met in operator.contractions(node.attributes) if operator is not None else ():
            weight = shapes.get(node.inputs[met.weight], ()) if node.has_input(met.weight) else ()
            if len(weight) > max(met.reads, met.writes) and node.inputs[met.weight] in self._static:
                return _LayerWidths(weight[met.reads], weight[met.writes])
        return _LayerWidths(1, sum(int(np.prod(shapes.get(key, ()))) for key in node.outputs if key))

    def _key(self, node: Node, keep: Keep) -> str:
        edited = self._edited(node, self.channels.mask(keep))
        attributes = {n: v for n, v in sorted(edited.attributes.items()) if not isinstance(v, np.ndarray)}
        inputs = self._inputs(node, keep)
        return cache.key("device layer", self.device, node.domain, node.op_type, repr(attributes), inputs)

    def _inputs(self, node: Node, keep: Keep) -> list[Shape | None]:
        shapes = self.channels.shapes(keep)
        return [self._one_sample(key, shapes.get(key, ())) if key else None for key in node.inputs]

    def _measured(self, batch: dict[str, tuple[Node, Keep]]) -> dict[str, float]:
        """Return the times of models by their keys; those that are not kept yet are measured together."""
        kept = {key: cache.load(key) for key in batch}
        found = {key: float(stored["ms"]) for key, stored in kept.items() if stored is not None and "ms" in stored}
        new = [key for key in batch if key not in found]
        models = []
        for node, keep in (batch[key] for key in new):
            models.append(self._alone(self._edited(node, self.channels.mask(keep)), self._inputs(node, keep)))
        for key, ms in zip(new, self.timer(models) if models else (), strict=True):
            cache.store(key, {"ms": np.array(ms)})
            found[key] = ms
        return found


def _first(group: ChannelGroup, count: int) -> Array:
    """Return a mask of the first channels of a group, an aligned number of them where that is possible."""
    count = max(1, min(group.size, round(count / STEP) * STEP or count))
    return np.arange(group.size) < count


def _between(known: dict[int, float], width: int) -> float:
    widths = sorted(known)
    return float(np.interp(width, widths, [known[w] for w in widths]))
