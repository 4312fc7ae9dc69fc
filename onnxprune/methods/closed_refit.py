"""Refit out of statistics alone: readers of removed channels read from those that stay what these tell of them.

For a reader W of K kept and P removed channels with covariance S and means m of what it reads, the best prediction of
the removed ones is B x_K + m_P - B m_K, B = S_PK (S_KK + r I)^-1, so W_K += W_P B and the bias grows by
W_P (m_P - B m_K). Where patches were collected, channels times taps take the place of channels; else every tap gets the
same B. Targets are the original's, inputs too: what earlier layers broke is not made up for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxprune.compensate.compensate import Compensation, LayerError, kept_positions
from onnxprune.compensate.readers import Reader, find_readers
from onnxprune.compensate.refit import Cut
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.graph.sweep import swept
from onnxprune.methods.gather import PATCHES, KnownSums
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.score.residual import damping
from onnxprune.statistics.moments import ChannelStatistics
from onnxprune.types import FloatArray, IntArray

SAME = 1e-6
"""Weights of one type that were cut and not changed."""


def closed_refit(result: PruneResult, known: KnownSums, runtime: Runtime) -> PruneResult:
    """Return the result with the readers of removed channels refitted, and the predicted error of each.

    A layer without Gram matrix, of several groups, or with a weight that others read stays as it is.
    """
    seen = known.seen(result.view)
    form = seen.form(result.model)
    proto = onnx.ModelProto()
    proto.CopyFrom(form.proto)
    weights, source = Weights(Model(proto, form.path, dict(form.pending))), Weights(seen.model)
    cut = Cut(seen.positions(kept_positions(result.channels, result.keep)), {})
    original = {reader.node.output[0]: reader for reader in find_readers(source)}
    activity, statistics = seen.activity(runtime), known.kept.statistics
    pools = {(r.node.outputs[0], r.tensor): activity.pools[r.stored] for r in activity.all_readings}
    lines: list[LayerError] = []
    for reader in find_readers(weights):
        output = reader.node.output[0]
        old, pool = original.get(output), pools.get((output, reader.x))
        if old is None or pool is None or len(old.effective) != 1:
            continue
        key = PATCHES + source.source(old.node.input[old.weight_index])
        change = _Change.of(reader, old, cut, statistics[pool], statistics.tensors.get(key))
        if change is not None:
            reader.store(weights, change.effective)
            lines.append(LayerError(reader.name, reader.node.op_type, change.before, change.after, True))
    model = swept(seen.restored(weights.model, form, result.model), result.model)
    return replace(
        result, model=model, plan=replace(result.plan, refitted=True), compensation=Compensation(model, lines)
    )


@dataclass(frozen=True, eq=False)
class _Change:
    """New weights of a reader, (1, outs, features + 1), and its error before and after, relative to its variance."""

    effective: FloatArray
    before: float
    after: float

    @staticmethod
    def of(
        reader: Reader, old: Reader, cut: Cut, channels: ChannelStatistics, patches: ChannelStatistics | None
    ) -> _Change | None:
        """Return the change of a reader; None where none of what it reads went, or it is not known how it is read."""
        now, before = reader.effective, old.effective[0]
        kept = cut.kept(reader.x, channels.axis % max(1, len(cut.positions.get(reader.x, ()))))
        width, taps = len(channels.mean), (before.shape[1] - 1) // len(channels.mean)
        if kept is None or before.shape[1] - 1 != width * taps or now.shape[2] - 1 != len(kept) * taps:
            return None
        gone = np.setdiff1d(np.arange(width), kept)
        blocks = before[:, :-1].reshape(len(before), taps, width)
        rows = _rows(now[0, :, :-1], blocks[:, :, kept].reshape(len(before), -1))
        if rows is None or not len(gone):
            return None
        lost = blocks[rows][:, :, gone]
        if patches is not None and patches.gram is not None and len(patches.mean) == width * taps:
            places = np.arange(width * taps).reshape(taps, width)
            found = _prediction(patches, places[:, kept].reshape(-1), places[:, gone].reshape(-1), reader.sink is None)
            lost = lost.reshape(len(lost), 1, -1)
        elif channels.gram is not None:
            found = _prediction(channels, kept, gone, reader.sink is None)
        else:
            return None
        mixing, shift, left, all_of_it = found
        changed = np.array(now)
        changed[0, :, :-1] += (lost @ mixing).reshape(len(lost), -1)
        changed[0, :, -1] += (lost @ shift).sum(axis=1)
        flat = lost.reshape(-1, lost.shape[2])
        return _Change(changed, *(_share(flat, part, now[0], channels) for part in (all_of_it, left)))


def _prediction(
    statistics: ChannelStatistics, kept: IntArray, gone: IntArray, through_zero: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return B (gone, kept), m_P - B m_K, the covariance of what B does not tell, and that of all that went."""
    matrix = np.asarray(statistics.gram) if through_zero else statistics.covariance
    inner, cross, own = matrix[np.ix_(kept, kept)], matrix[np.ix_(gone, kept)], matrix[np.ix_(gone, gone)]
    level = damping(statistics) * max(float(np.trace(inner)) / max(1, len(kept)), 1e-30)
    mixing = np.linalg.solve(inner + level * np.eye(len(kept)), cross.T).T
    shift = np.zeros(len(gone)) if through_zero else statistics.mean[gone] - mixing @ statistics.mean[kept]
    # without a refit the mean goes too
    return mixing, shift, own - mixing @ cross.T, np.asarray(statistics.gram)[np.ix_(gone, gone)]


def _rows(now: FloatArray, before: FloatArray) -> IntArray | None:
    """Return which rows of the original's weights these are, None where they are not."""
    if len(now) == len(before):
        return np.arange(len(now)) if np.allclose(now, before, SAME, SAME) else None
    places, start = [], 0
    for row in now:
        same = np.flatnonzero(np.isclose(before[start:], row, SAME, SAME).all(axis=1))
        if not len(same):
            return None
        places.append(start + int(same[0]))
        start = places[-1] + 1
    return np.array(places)


def _share(lost: FloatArray, covariance: FloatArray, kept: FloatArray, channels: ChannelStatistics) -> float:
    """Return the variance that rows of weights make of what is lost, relative to what the layer gives in all."""
    error = float(np.einsum("rp,pq,rq->", lost, covariance, lost))
    power = float(channels.variance.mean()) * float(np.square(kept[:, :-1]).sum())
    return max(0.0, error) / max(power + max(0.0, error), 1e-30)
