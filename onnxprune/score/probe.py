"""What cutting one group alone costs at the outputs, measured without cutting it.

The readers of the group get weights that ignore the removed channels and make up for them from those that stay, which
is what the refitted network would have; everything else stays. These weights are inputs of a session of what stands
behind them, so that a trial costs one run of that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.groups import ChannelGroup
from onnxprune.errors import DataError
from onnxprune.graph.session import Session, open_session
from onnxprune.score.activity import Activity
from onnxprune.score.readings import Reading
from onnxprune.score.residual import DAMPING, damping
from onnxprune.score.tail import Tail, open_tail, tail_of
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, FloatArray, IntArray

BATCH = 8
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
ENTRIES_SHARE = 0.125
"""Share of the memory for tensors that wait before the parts behind groups."""


@dataclass(eq=False)
class Probe:
    """Runs the model with replaced weights and tells how far its outputs are from the original's.

    samples: how many of the data are run.
    """

    activity: Activity
    groups: Sequence[ChannelGroup]
    samples: int = 64
    _open: dict[tuple[str, ...], _Part] = field(default_factory=dict)

    def distance(self, weights: dict[str, Array]) -> float:
        """Return the mean squared difference of the outputs, relative to their variance, averaged over outputs."""
        seen = self._variance > 0
        if not seen.any() or not weights:
            return 0.0
        part = self._part(weights)
        places = [self._names.index(name) for name in part.tail.outputs]
        total = np.zeros(len(self._names))
        for number, entries in enumerate(part.entries):
            given = part.session.values(part.tail.outputs, entries | weights) if part.session is not None else []
            for place, a in zip(places, given, strict=True):
                b = self._originals[number][place]
                if a.shape == b.shape and np.isfinite(b).all():
                    total[place] += float(np.square(np.nan_to_num(a - b, nan=1e6, posinf=1e6, neginf=-1e6)).sum())
        return float((total[seen] / self._variance[seen]).mean())

    def without(self, group: ChannelGroup, removed: IntArray) -> dict[str, Array]:
        """Return the weights that stand for the model without some channels of a group, what is left made up for."""
        weights: dict[str, Array] = {}
        for reading, positions in self._refittable(group):
            gram = self.activity.of(reading).gram
            if gram is None or reading.weight in weights:
                continue
            stored = self._stored(reading.weight)
            moved = np.moveaxis(stored, reading.weight_axis, 0)
            rows = moved.reshape(len(moved), -1).astype(np.float64)
            shape, kind = moved.shape, stored.dtype
            changed = refit_rows(rows, gram, positions[removed].reshape(-1), damping(self.activity.of(reading)))
            changed = changed.reshape(shape)
            weights[reading.weight] = np.moveaxis(changed, 0, reading.weight_axis).astype(kind)
        return weights or self._zeroed(group, removed)

    def alone(self, group: ChannelGroup, removed: IntArray) -> float:
        """Return the distance when these channels of one group go, and nothing else."""
        return self.distance(self.without(group, removed)) if len(removed) else 0.0

    def off(self, group: ChannelGroup, removed: IntArray) -> dict[str, Array]:
        """Return the weights that stand for the model without some channels of a group, nothing made up for."""
        weights: dict[str, Array] = {}
        for reading, positions in self._replaceable_readings(group):
            array = np.array(weights.get(reading.weight, self._stored(reading.weight)))
            index: list[slice | IntArray] = [slice(None)] * array.ndim
            index[reading.weight_axis] = positions[removed].reshape(-1)
            array[tuple(index)] = 0
            weights[reading.weight] = array
        return weights or self._zeroed(group, removed)

    def _replaceable_readings(self, group: ChannelGroup) -> list[tuple[Reading, IntArray]]:
        found = self.activity.weights(group)
        return [(reading, positions) for reading, positions in found if reading.weight in self._replaceable]

    def _refittable(self, group: ChannelGroup) -> list[tuple[Reading, IntArray]]:
        found = self._replaceable_readings(group)
        return [(reading, positions) for reading, positions in found if self.activity.of(reading).gram is not None]

    def _zeroed(self, group: ChannelGroup, removed: IntArray) -> dict[str, Array]:
        """Return the writers with zeros where channels go: nobody reads them linearly."""
        weights: dict[str, Array] = {}
        for site in group.sites:
            if site.role in ("writes", "scales") and site.use is None and site.tensor in self._replaceable:
                array = np.array(weights.get(site.tensor, self._stored(site.tensor)))
                index: list[slice | IntArray] = [slice(None)] * array.ndim
                index[site.axis] = site.positions[removed].reshape(-1)
                array[tuple(index)] = 0
                weights[site.tensor] = array
        return weights

    def _stored(self, key: str) -> Array:
        return self.activity.view.content(key)

    @cached_property
    def _replaceable(self) -> set[str]:
        """Floating-point tensors of the main graph that can be given other values."""
        view = self.activity.view
        main = {t.name for t in view.model.proto.graph.initializer}
        main |= {n.output[0] for n in view.model.proto.graph.node if n.op_type == "Constant"}
        return {key for key in main & view.parameters.keys() if view.parameters[key].data_type in FLOATS}

    def _part(self, weights: dict[str, Array]) -> _Part:
        """Return what stands behind some weights, opened; only that of the last ones is kept."""
        key = tuple(sorted(weights))
        if key not in self._open:
            self._open.clear()
            activity = self.activity
            graph = activity.view.model.proto.graph
            tail = tail_of(graph, key, self._names)
            if not self._fits(tail.entries):
                tail = tail_of(graph, key, self._names, whole=True)
            entries = self._entries(tail) if tail.outputs else [{} for _ in self._feeds]
            session = self._session(tail, entries[0], weights) if tail.outputs else None
            self._open[key] = _Part(tail, session, entries)
        return self._open[key]

    def _session(self, tail: Tail, entries: Feed, weights: dict[str, Array]) -> Session:
        activity = self.activity
        threads, provider = activity.threads or None, activity.provider
        return open_tail(activity.view.model, tail, entries, weights, threads=threads, provider=provider)

    def _entries(self, tail: Tail) -> list[Feed]:
        """Return what the part reads, batch by batch."""
        if self._waiting is not None and all(name in self._waiting[0] for name in tail.entries):
            return [{name: values[name] for name in tail.entries} for values in self._waiting]
        return self._run(tail.entries)

    @cached_property
    def _waiting(self) -> list[Feed] | None:
        """What the parts behind all groups read; None where it would take too much memory."""
        graph = self.activity.view.model.proto.graph
        names: dict[str, None] = {}
        for group in self.groups:
            keys = sorted({reading.weight for reading, _ in self._refittable(group)})
            names.update(dict.fromkeys(tail_of(graph, keys, self._names).entries if keys else ()))
        if not names:
            return None
        return self._run(tuple(names)) if self._fits(tuple(names)) else None

    def _fits(self, names: Sequence[str]) -> bool:
        """Tell whether tensors of all batches may be kept; inputs are there already."""
        feed = self._feeds[0]
        inner = [name for name in names if name not in feed]
        first = self._run(inner, batches=1)[0] if inner and self._not_kept(inner) else {}
        size = sum(array.nbytes for array in first.values()) * len(self._feeds)
        return size <= ENTRIES_SHARE * self.activity.allowed

    def _not_kept(self, names: Sequence[str]) -> bool:
        kept = self.__dict__.get("_waiting")
        return kept is None or any(name not in kept[0] for name in names)

    def _run(self, names: Sequence[str], batches: int | None = None) -> list[Feed]:
        """Return tensors of the original, batch by batch."""
        feeds = self._feeds[:batches]
        inner = [name for name in names if not feeds or name not in feeds[0]]
        model, activity = self.activity.view.model, self.activity
        session = open_session(
            observed(model, inner), threads=activity.threads or None, provider=activity.provider, folder=model.folder
        )
        found = []
        for feed in feeds:
            values = dict(zip(inner, session.values(inner, feed), strict=True)) if inner else {}
            found.append(values | {name: feed[name] for name in names if name in feed})
        return found

    @cached_property
    def _names(self) -> list[str]:
        outputs = self.activity.view.model.proto.graph.output
        names = [v.name for v in outputs if v.type.tensor_type.elem_type in (*FLOATS, 0)]
        if not names:
            raise DataError("the model has no floating-point output, so no distance to it can be measured.")
        return names

    @cached_property
    def _feeds(self) -> list[Feed]:
        feeds, left = [], self.samples
        for feed in self.activity.data.batches(min(BATCH, self.samples)):
            feeds.append(feed)
            left -= len(next(iter(feed.values())))
            if left <= 0:
                break
        return feeds

    @cached_property
    def _originals(self) -> list[list[Array]]:
        found = self._run(self._names)
        return [[values[name].astype(np.float64) for name in self._names] for values in found]

    @cached_property
    def _variance(self) -> FloatArray:
        """(outputs,): squared distance of each output from its mean, over all samples."""
        parts = [np.concatenate([batch[n].ravel() for batch in self._originals]) for n in range(len(self._names))]
        finite = [part[np.isfinite(part)] for part in parts]
        return np.array([float(np.square(p - p.mean()).sum()) if p.size else 0.0 for p in finite])


@dataclass(frozen=True, eq=False)
class _Part:
    """What stands behind the weights of one group, ready to run.

    session: None where no output depends on them.
    """

    tail: Tail
    session: Session | None
    entries: list[Feed]


def refit_rows(rows: FloatArray, gram: FloatArray, gone: IntArray, damp: float = DAMPING) -> FloatArray:
    """Return (positions, elements) weights that read nothing at `gone`: W_K + B^T W_P, B = G_PK (G_KK + r I)^-1."""
    kept = np.setdiff1d(np.arange(len(gram)), gone)
    changed = np.zeros_like(rows)
    if not len(kept):
        return changed
    inner = gram[np.ix_(kept, kept)]
    level = damp * max(float(np.trace(inner)) / len(kept), 1e-30)
    share = np.linalg.solve(inner + level * np.eye(len(kept)), gram[np.ix_(kept, gone)])
    changed[kept] = rows[kept] + share @ rows[gone]
    return changed
