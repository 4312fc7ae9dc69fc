"""What cutting one group alone costs at the outputs, measured without cutting it.

The readers of the group get weights that ignore the removed channels and make up for them from those that stay, which
is what the refitted network would have; everything else stays. Weights are inputs of one session, so that a trial costs
one run and no session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx

from onnxprune.channels.groups import ChannelGroup
from onnxprune.errors import DataError
from onnxprune.score.activity import Activity
from onnxprune.score.residual import DAMPING, damping
from onnxprune.score.weights import read_weight
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.session import Session
from onnxprune.types import Array, FloatArray, IntArray

BATCH = 16
INITIALIZERS_ALONE = 4
"""IR version from which an initializer may be an input too, and so be replaced in a run."""


@dataclass(eq=False)
class Probe:
    """Runs the model with replaced weights and tells how far its outputs are from the original's.

    samples: how many of the data are run.
    """

    activity: Activity
    groups: Sequence[ChannelGroup]
    samples: int = 64
    _wanted: list[list[Array]] = field(default_factory=list)

    def distance(self, weights: dict[str, Array]) -> float:
        """Return the mean squared difference of the outputs, relative to their variance, averaged over outputs."""
        session, names = self._session
        total, power, mean, count = (np.zeros(len(names)) for _ in range(4))
        for feed, wanted in zip(self._feeds, self._originals, strict=True):
            given = session.run(names, feed | weights)
            for place, (a, b) in enumerate(zip(given, wanted, strict=True)):
                if a.shape == b.shape and np.isfinite(b).all():
                    total[place] += float(np.square(np.nan_to_num(a - b, nan=1e6, posinf=1e6, neginf=-1e6)).sum())
                    power[place] += float(np.square(b).sum())
                    mean[place] += float(b.sum())
                    count[place] += b.size
        variance = power - mean**2 / np.maximum(count, 1)
        seen = variance > 0
        return float((total[seen] / variance[seen]).mean()) if seen.any() else 0.0

    def without(self, group: ChannelGroup, removed: IntArray) -> dict[str, Array]:
        """Return the weights that stand for the model without some channels of a group, what is left made up for."""
        weights: dict[str, Array] = {}
        for reading, positions in self.activity.readings(group):
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
        for reading, positions in self.activity.readings(group):
            array = np.array(weights.get(reading.weight, self._stored(reading.weight)))
            index: list[slice | IntArray] = [slice(None)] * array.ndim
            index[reading.weight_axis] = positions[removed].reshape(-1)
            array[tuple(index)] = 0
            weights[reading.weight] = array
        return weights or self._zeroed(group, removed)

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
        view = self.activity.view
        return view.model.array(view.parameters[key].tensor)

    @cached_property
    def _replaceable(self) -> set[str]:
        """Floating-point tensors that readers or writers of the groups use."""
        view = self.activity.view
        keys = {site.tensor for group in self.groups for site in group.sites if site.use is None}
        keys |= {reading.weight for reading in self.activity.all_readings}
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
        main = {t.name for t in view.model.proto.graph.initializer}
        main |= {n.output[0] for n in view.model.proto.graph.node if n.op_type == "Constant"}
        return {key for key in keys if key in main and view.parameters[key].data_type in floats}

    @cached_property
    def _session(self) -> tuple[Session, list[str]]:
        view = self.activity.view
        proto = onnx.ModelProto()
        proto.CopyFrom(view.model.proto)
        proto.ir_version = max(proto.ir_version, INITIALIZERS_ALONE)
        graph = proto.graph
        constants = [n for n in graph.node if n.op_type == "Constant" and n.output[0] in self._replaceable]
        for node in constants:
            graph.initializer.append(
                onnx.numpy_helper.from_array(read_weight(view, node.output[0]), name=node.output[0])
            )
            graph.node.remove(node)
        known = {value.name for value in graph.input}
        for key in sorted(self._replaceable - known):
            parameter = view.parameters[key]
            graph.input.append(onnx.helper.make_tensor_value_info(key, parameter.data_type, parameter.dims))
        session = Session(
            proto, threads=self.activity.threads or None, provider=self.activity.provider, folder=view.model.folder
        )
        floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, 0)
        names = [v.name for v in graph.output if v.type.tensor_type.elem_type in floats]
        if not names:
            raise DataError("the model has no floating-point output, so no distance to it can be measured.")
        return session, names

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
        session, names = self._session
        return [[array.astype(np.float64) for array in session.run(names, feed)] for feed in self._feeds]


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
