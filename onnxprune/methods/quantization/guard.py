"""Whether int8 still does what the model does, on samples that no range was taken from.

Scores over classes are judged by how often the top class changes: counted, and expected from the margins and the noise
of them, which a few samples tell better than counting. Everything else, also masks and tags that are each a sigmoid of
their own, is judged by its signal to noise ratio. State that the model gives out and takes back is fed back for several
steps, as errors of it grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from onnxprune.evidence.kinds import LABELS, SORTED, STATE, Kind, output_kinds
from onnxprune.evidence.parity import Meter
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.types import Array

Feeds = Mapping[str, Array]

LEAST_AGREEMENT = 0.98
LEAST_SQNR_DB = 22.0
HELD_OUT = 4
"""One sample in so many is held out."""
LEAST_SAMPLES = 32
"""With fewer there is no guard: what a quarter of them says is chance."""
STEPS = 16
"""Steps for which a state is fed back."""


def split(
    proto: onnx.ModelProto, feeds: Sequence[dict[str, Array]]
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Return the feeds that ranges are taken from and those that are held out, one sample in four; none of few."""
    sizes = [_samples(proto, feed) for feed in feeds]
    if sum(sizes) < LEAST_SAMPLES:
        return list(feeds), []
    fit: list[dict[str, Array]] = []
    held: list[dict[str, Array]] = []
    number = 0
    for feed, size in zip(feeds, sizes, strict=True):
        places = (np.arange(number, number + size) % HELD_OUT) == HELD_OUT - 1
        number += size
        if size == 1:
            (held if places[0] else fit).append(dict(feed))
            continue
        for part, chosen in ((fit, ~places), (held, places)):
            if chosen.any():
                part.append({name: array[chosen] for name, array in feed.items()})
    return fit, held


def samples(proto: onnx.ModelProto, feeds: Sequence[Feeds]) -> int:
    """Return how many samples some feeds hold."""
    return sum(_samples(proto, feed) for feed in feeds)


def _samples(proto: onnx.ModelProto, feed: Feeds) -> int:
    """Return how many samples a feed holds that can be taken apart: 1 where the model fixes the first axis."""
    fixed = {
        value.name
        for value in proto.graph.input
        if not value.type.tensor_type.shape.dim or value.type.tensor_type.shape.dim[0].HasField("dim_value")
    }
    sizes = {array.shape[0] if array.ndim else 0 for array in feed.values()}
    return 1 if len(sizes) != 1 or fixed & feed.keys() else max(1, *sizes)


def one_sample(proto: onnx.ModelProto, feed: Feeds) -> dict[str, Array]:
    """Return the first sample of a feed, as far as it can be taken apart."""
    return {name: array[:1] if _samples(proto, feed) > 1 else array for name, array in feed.items()}


def _common(one: str, other: str) -> int:
    """Return how many letters two names begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass(frozen=True, eq=False)
class Guard:
    """The original's outputs on held-out feeds, and the judgement of a quantized model against them."""

    original: Model
    feeds: Sequence[Feeds]
    threads: int = 0

    def failures(self, model: Model) -> list[str]:
        """Return what a quantized model does not keep, in words; empty if it is good enough."""
        table: dict[str, list[tuple[Array, Array]]] = {}
        for before, after in zip(self._wanted, self._run(model), strict=True):
            for name in before:
                table.setdefault(name, []).append((before[name], after[name]))
        found = [self._failure(name, pairs) for name, pairs in table.items() if name in self._judged]
        return [failure for failure in found if failure]

    @cached_property
    def _traced(self) -> tuple[View, dict[str, Kind], dict[str, str]]:
        view = View(self.original)
        traced = trace(view)
        kinds = output_kinds(view, traced)
        states: dict[str, str] = {}
        for name, kind in kinds.items():
            key = (traced.shapes.get(name), traced.data_type(name)) if kind.name == STATE else None
            twins = [
                other
                for other in view.inputs
                if key and other not in states and (traced.shapes.get(other), traced.data_type(other)) == key
            ]
            if twins:
                states[max(twins, key=lambda other: _common(other, name))] = name
        return view, kinds, states

    @cached_property
    def _judged(self) -> set[str]:
        """Outputs that are judged: not a state, unless there is nothing else."""
        kinds = self._traced[1]
        judged = {name for name, kind in kinds.items() if kind.name not in (STATE, SORTED, LABELS)}
        return judged or {name for name, kind in kinds.items() if kind.name != SORTED}

    @cached_property
    def _wanted(self) -> list[dict[str, Array]]:
        return list(self._run(self.original))

    def _run(self, model: Model) -> Iterator[dict[str, Array]]:
        """Yield the outputs on each feed, with states fed back."""
        states = self._traced[2]
        with open_session(model, threads=self.threads, label="the quantized model") as session:
            last: dict[str, Array] = {}
            for number, feed in enumerate(self.feeds):
                given = dict(session.fit(dict(feed)))
                if number % STEPS:
                    given |= {
                        name: last[output]
                        for name, output in states.items()
                        if output in last and last[output].shape == given[name].shape
                    }
                last = session.run(given)
                yield last

    def _failure(self, name: str, pairs: Sequence[tuple[Array, Array]]) -> str:
        kind = self._traced[1][name]
        if any(a.shape != b.shape for a, b in pairs):
            return f"output '{name}' has another shape"
        if pairs[0][0].dtype.kind not in "fV":
            same = float(np.mean([np.mean(a == b) for a, b in pairs]))
            return "" if same >= LEAST_AGREEMENT else f"output '{name}' agrees for {same:.1%}"
        meter = Meter(kind)
        for before, after in pairs:
            meter.add(before, after)
        parity = meter.result()
        if parity is not None and parity.agreement is not None and kind.squash != "sigmoid":
            share = agreement(pairs, kind.axis if kind.axis is not None else -1)
            if share < LEAST_AGREEMENT:
                return f"output '{name}': {share:.1%} of the classes agree, {LEAST_AGREEMENT:.0%} are wanted"
            return ""
        sqnr = sqnr_db(pairs)
        return "" if sqnr >= LEAST_SQNR_DB else f"output '{name}' has {sqnr:.1f} dB, {LEAST_SQNR_DB:g} dB are wanted"


def agreement(pairs: Sequence[tuple[Array, Array]], axis: int) -> float:
    """Return the share of top classes that stay: the least of what is counted, but for one, and what is to be expected.

    One change among few samples is chance.
    With d the original's margin between its two best classes, d' the same difference in the other model and s the root
    mean square of d' - d, a class changes with probability Phi(-d / s).
    """
    margins, noise, same = [], [], []
    for a, b in pairs:
        a, b = (np.moveaxis(x.astype(np.float64), axis, -1).reshape(-1, x.shape[axis]) for x in (a, b))
        if not np.isfinite(b).all():
            return 0.0
        same.append(a.argmax(axis=1) == b.argmax(axis=1))
        if a.min(initial=0.0) >= 0 and np.allclose(a.sum(axis=1), 1, atol=1e-3):  # of a softmax: back to logits
            a, b = np.log(np.maximum(a, 1e-12)), np.log(np.maximum(b, 1e-12))
        rows, best = np.arange(len(a))[:, None], np.argsort(a, axis=1)[:, -2:]
        margin = np.diff(a[rows, best], axis=1).ravel()
        margins.append(margin)
        noise.append(np.diff(b[rows, best], axis=1).ravel() - margin)
    margin, error = np.concatenate(margins), np.concatenate(noise)
    spread = max(float(np.sqrt(np.mean(np.minimum(np.square(error), np.square(margin) + 1e-12)))), 1e-12)
    flips = np.mean([0.5 * math.erfc(value / spread / math.sqrt(2)) for value in margin])
    changed = np.concatenate(same) == 0
    return min(1 - max(0, int(changed.sum()) - 1) / len(changed), 1 - float(flips))


def sqnr_db(pairs: Sequence[tuple[Array, Array]]) -> float:
    """Return the signal to noise ratio over all samples, in dB."""
    signal = sum(float(np.square(a.astype(np.float64)).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a.astype(np.float64) - b.astype(np.float64)).sum()) for a, b in pairs)
    if not math.isfinite(noise):
        return -300.0
    return 10 * math.log10(max(signal, 1e-30) / max(noise, 1e-30))
