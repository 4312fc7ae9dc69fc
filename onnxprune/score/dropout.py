"""The criterion of random subsets: many channels are switched off at a time, and each one's share is read off.

Every sample of a run has a mask of its own, so one run tells as much as a batch of ablations; and a channel is seen
with others missing, as after a prune, not with all others there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.compensate.gradient import differentiable
from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.session import Session, open_session
from onnxprune.score.activity import Activity, run_tensors
from onnxprune.score.criterion import criterion
from onnxprune.score.gradients import gate
from onnxprune.score.group_slices import Slices
from onnxprune.score.magnitude import l2
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array, FloatArray, IntArray

SAMPLES, BATCH = 64, 16
OFF = 0.3
"""Share of the channels of a group that a mask switches off: about what a prune removes."""
MASKS, LEAST, MOST = 64, 1024, 8192
"""Masks for each channel of a group, and at least and at most for a group."""
RIDGE = 1e-2

Place = tuple[tuple[str, int], IntArray]
"""A tensor that is read, its axis, and the positions (channels, ..) of a group's channels there."""


@criterion("dropout", comparable=True, needs_data=True)
def dropout(slices: Slices) -> FloatArray:
    """Share of the channel in what random subsets cost: the s[c] with least sum over masks of (d - sum of s off)^2.

    d = mean |y - y with the mask|^2 / var y, all samples counting alike. Its channels apart, a group's network stays
    whole. A channel's share is what it adds to subsets of others, as a Shapley value has it. Nothing makes up for it.
    Source: Lundberg and Lee 2017, A unified approach to interpreting model predictions, section 4.1 (regression on
    masks); Ancona et al. 2020, Shapley value as principled metric for structured network pruning, section 3.
    """
    activity = slices.activity
    found = activity.readings(slices.group) if activity else []
    if activity is None or not found:
        slices.notes.append("have no linear reader whose input could be seen, so l2 is used")
        return l2(slices)
    if activity.dropout is None:
        activity.dropout = _Masked.open(activity)
    masked: _Masked = activity.dropout
    places = [((r.tensor, r.axis), positions) for r, positions in found if (r.tensor, r.axis) in masked.gates]
    if not places:
        slices.notes.append("have no reader that could be masked sample by sample, so l2 is used")
        return l2(slices)
    size = slices.group.size
    off, costs = masked.costs(places, size, slices.generator)
    weights = off.astype(np.float64)
    moment = weights.T @ weights / len(weights)
    moment += RIDGE * np.trace(moment) / size * np.eye(size)
    return np.asarray(np.maximum(np.linalg.solve(moment, weights.T @ costs / len(weights)), 0.0))


@dataclass(frozen=True, eq=False)
class _Masked:
    """The model with a gate on what is read, one number for each sample and channel."""

    session: Session
    gates: Mapping[tuple[str, int], tuple[str, tuple[int, ...]]]
    outputs: list[str]
    feeds: list[Feed]
    plain: list[list[Array]]
    variance: list[float]

    @staticmethod
    def open(activity: Activity) -> _Masked:
        """Return the gated model.

        Raises:
            UsageError: it cannot be written with gates.
        """
        model = activity.view.model
        feeds = [feed for feed, _ in zip(activity.data.batches(BATCH), range(SAMPLES // BATCH), strict=False)]
        feeds = [f for f in feeds if all(f[n].shape == feeds[0][n].shape for n in f)]
        count = len(next(iter(feeds[0].values())))
        names = [value.name for value in model.proto.graph.output]
        readings = {(r.tensor, r.axis): r for r in activity.all_readings if r.input >= 0}
        values = run_tensors(activity, [*names, *(tensor for tensor, _ in readings)], BATCH)
        outputs = [n for n in names if values[n].dtype == np.float32 and len(values[n]) == count]
        if not outputs:
            raise UsageError("this score compares samples: no output has one value for each. Choose another score.")
        try:
            proto = differentiable(model, feeds[0])
        except ModelError as error:
            raise UsageError(f"this score needs gates: {error} Choose another score.") from error
        gates = {
            key: gate(proto, reading, values[key[0]], number)
            for number, (key, reading) in enumerate(readings.items())
            if values[key[0]].dtype == np.float32 and key[1] and values[key[0]].shape[0] % count == 0
        }
        kept = [value for value in proto.graph.output if value.name in outputs]
        del proto.graph.output[:]
        proto.graph.output.extend(kept)
        session = open_session(proto, threads=activity.threads or None)
        ones = {name: np.ones(shape, np.float32) for name, shape in gates.values()}
        plain = [session.values(outputs, feed | ones) for feed in feeds]
        variance = [float(np.concatenate([v[k].ravel() for v in plain]).var()) for k in range(len(outputs))]
        return _Masked(session, gates, outputs, feeds, plain, variance)

    def costs(self, places: list[Place], size: int, generator: np.random.Generator) -> tuple[Array, FloatArray]:
        """Return (masks, channels), True where a channel is off, and (masks,) what that costs.

        Args:
            places: of tensors that are read, with the positions (channels, ..) of the group's channels.
        """
        ones = {name: np.ones(shape, np.float32) for name, shape in self.gates.values()}
        count = len(next(iter(self.feeds[0].values())))
        turns = len(self.feeds)
        runs = -(-min(max(MASKS * size, LEAST), MOST) // (count * turns)) * turns
        masks, costs = [], []
        for run in range(runs):
            number = run % turns
            off = generator.random((count, size)) < OFF
            given = self.session.values(self.outputs, self.feeds[number] | ones | self._gates(places, off, ones))
            masks.append(off)
            costs.append(self._distance(number, given))
        # samples that lose much by any mask would drown what masks say on the others
        found = np.stack(costs).reshape(-1, turns, count)
        usual = found.mean(axis=0)
        return np.concatenate(masks), (found / np.maximum(usual, 1e-12) * usual.mean()).ravel()

    def _gates(self, places: list[Place], off: Array, ones: Feed) -> Feed:
        found: Feed = {}
        for key, positions in places:
            name, shape = self.gates[key]
            wide = found.get(name, ones[name]).reshape(shape[0], -1).copy()
            rows = np.repeat(off, shape[0] // len(off), axis=0)
            for column in np.asarray(positions).reshape(off.shape[1], -1).T:
                wide[:, column] = np.where(rows, 0.0, wide[:, column])
            found[name] = wide.reshape(shape)
        return found

    def _distance(self, number: int, given: list[Array]) -> FloatArray:
        total = np.zeros(len(given[0]))
        for value, wanted, spread in zip(given, self.plain[number], self.variance, strict=True):
            if spread > 0:
                total += np.square((value - wanted).astype(np.float64)).reshape(len(value), -1).mean(axis=1) / spread
        return total / len(given)
