"""Gradient steps after the refit: the pruned network learns to give what the original gives, without labels.

The loss is the squared distance of the outputs (before a last Softmax or Sigmoid) and of inner sums at their kept
positions, each relative to its variance in the original. onnx-ad writes the gradient as an ONNX graph, onnxruntime runs
it, numpy takes the steps. Samples are varied (shifted, mirrored, mixed in pairs); the original says what is right for
them, so no label is needed.
Source: function matching on varied samples (Beyer et al., 2022, section 3); inner tensors as in FitNets (Romero et al.,
2015, equation 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx

from onnxprune.compensate.descent import Descent
from onnxprune.compensate.draws import Draws, draws_of
from onnxprune.compensate.gradient import Gradient, gradient_graph
from onnxprune.compensate.weights import Weights
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed, input_specs
from onnxprune.statistics.session import Session
from onnxprune.types import Array

Cut = Callable[[Array], Array]
"""Takes a tensor of the original to the positions of the pruned network."""
SLOWER = (1, 8, 64)
"""The rate is divided by these, one after the other, until held-out samples say that steps are of use."""
LOOKS, PATIENCE = 10, 0.3
"""How often held-out samples are looked at, and the share of the steps by which they must have shown a gain."""
WORSE = 2.0
"""A loss this many times that before the steps is beyond hope."""
SEEN = 32
"""Feeds that tell how much a tensor varies where a feed cannot hold several samples."""
HELD_RUNS = 4
"""Held-out samples of so many runs are looked at."""
LAST = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")
"""What is before these tells more than what is behind them."""


@dataclass(frozen=True)
class DistilOptions:
    """How long and how fast.

    samples: for a step. batch: of one run, at most.
    rate: size of the largest step, relative to the root mean square of the weights that it changes.
    inner: weight of all inner tensors together in the loss; the outputs together have 1.
    """

    steps: int = 600
    samples: int = 64
    batch: int = 64
    rate: float = 0.01
    inner: float = 4.0
    mix: bool = False
    shift: bool = True
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Distilled:
    """Loss on held-out samples before and after some steps, relative to the variance of the original's tensors."""

    before: float
    after: float
    steps: int = 0


def distil(
    original: Model,
    pruned: Model,
    outputs: Mapping[str, Cut],
    inner: Mapping[str, Cut],
    feeds: Sequence[Feed],
    options: DistilOptions,
) -> tuple[Model, Distilled]:
    """Return the pruned model after gradient steps, or as it was if held-out samples say that it got worse.

    Args:
        outputs: outputs of both networks to compare.
        inner: tensors inside both networks to compare.

    Raises:
        ModelError: onnx-ad is missing or has no gradient of the model, or there are fewer than three samples.
    """
    specs = input_specs(original.proto)
    draws = draws_of(feeds, specs, options.samples, options.batch, shift=options.shift, mix=options.mix)
    teacher = _Teacher(original, {**outputs, **inner}, options.threads)
    example = draws.example()
    probe = {name: value for name, value in teacher(example).items() if value.dtype == np.float32}
    variance = _variances(probe, (teacher(feed) for feed in islice(draws.examples(), 1 if draws.stacked else SEEN)))
    compared = _loss_weights(
        variance, [n for n in outputs if n in probe], [n for n in inner if n in probe], options.inner
    )
    gradient = gradient_graph(pruned, compared, {name: probe[name].shape for name in compared}, example)
    slopes = _Slopes(Session(gradient.proto, threads=options.threads), gradient, teacher)
    before = slopes.loss(gradient.weights, draws)
    for slower in SLOWER:
        descent = Descent(gradient.weights, gradient.matrices, options.rate / slower, options.steps)
        weights, after, steps = _descend(descent, slopes, draws, before, options)
        if steps:
            return _with_weights(pruned, gradient, weights), Distilled(before, after, steps)
    return pruned, Distilled(before, before)


def before_last(graph: onnx.GraphProto, name: str) -> str:
    """Return what a last Softmax or Sigmoid reads, if the tensor is made by one."""
    makers = {output: node for node in graph.node for output in node.output}
    while name in makers and makers[name].op_type in LAST and not makers[name].domain:
        name = makers[name].input[0]
    return name


class _Teacher:
    def __init__(self, model: Model, cuts: Mapping[str, Cut], threads: int | None) -> None:
        self._session = Session(observed(model, cuts), threads=threads, folder=model.folder)
        self._cuts = cuts

    def __call__(self, feed: Feed) -> dict[str, Array]:
        values = self._session.run(list(self._cuts), feed)
        return {name: cut(value) for (name, cut), value in zip(self._cuts.items(), values, strict=True)}


def _variances(names: Iterable[str], values: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """Return the variance of tensors over all values of several feeds: that of one sample may be of one number."""
    parts = list(values)
    return {name: float(np.concatenate([part[name].ravel() for part in parts]).var()) for name in names}


def _loss_weights(
    variance: Mapping[str, float], outputs: Sequence[str], inner: Sequence[str], share: float
) -> dict[str, float]:
    weights = {name: share / len(inner) for name in inner if share}
    for name in outputs:
        weights[name] = weights.get(name, 0.0) + 1.0 / len(outputs)
    if not weights:
        raise ModelError("no floating-point tensor can be compared with the original.")
    return {name: weight / max(variance[name], 1e-12) for name, weight in weights.items()}


@dataclass(frozen=True)
class _Slopes:
    """Runs both networks on a feed and tells the loss and its gradient by every weight."""

    session: Session
    gradient: Gradient
    teacher: _Teacher

    def __call__(self, weights: Mapping[str, Array], feed: Feed) -> list[Array]:
        wanted = self.teacher(feed)
        targets = {target: wanted[name] for name, target in self.gradient.targets.items()}
        return self.session.run(self.gradient.outputs(), {**feed, **targets, **weights, **self.gradient.seed()})

    def loss(self, weights: Mapping[str, Array], draws: Draws) -> float:
        """Return the loss on held-out samples."""
        return float(
            np.mean([self(weights, feed)[0] for feed in islice(draws.held_out(), HELD_RUNS if draws.stacked else SEEN)])
        )


def _descend(
    descent: Descent, slopes: _Slopes, draws: Draws, before: float, options: DistilOptions
) -> tuple[dict[str, Array], float, int]:
    """Return the weights that were best on held-out samples, their loss, and after how many steps; 0: none were."""
    generator = np.random.default_rng(options.seed)
    best: tuple[dict[str, Array], float, int] = (dict(descent.weights), before, 0)
    look = max(1, options.steps // LOOKS)
    for step in range(1, options.steps + 1):
        found = [slopes(descent.weights, feed)[1:] for feed in draws.step(generator)]
        descent.step(np.asarray(np.mean(same, axis=0, dtype=np.float32)) for same in zip(*found, strict=True))
        if step % look and step < options.steps:
            continue
        loss = slopes.loss(descent.weights, draws)
        if loss < best[1]:
            best = (dict(descent.weights), loss, step)
        elif not best[2] and (step >= PATIENCE * options.steps or not loss < WORSE * before):
            break
    return best


def _with_weights(model: Model, gradient: Gradient, weights: Mapping[str, Array]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    store = Weights(Model(proto, model.path, dict(model.pending)))
    for name, value in weights.items():
        if np.isfinite(value).all() and not np.array_equal(value, gradient.weights[name]):
            store.replace(name, value)
    return store.model
