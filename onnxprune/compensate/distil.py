"""Gradient steps after the refit: the pruned network learns to give what the original gives, without labels.

The loss is the squared distance of the outputs (before a last Softmax or Sigmoid) and of inner sums at their kept
positions, each relative to its variance in the original. onnx-ad writes the gradient as an ONNX graph, onnxruntime runs
it, numpy takes the steps. Samples are varied (shifted, mirrored, mixed in pairs); the original says what is right for
them, so no label is needed.
Source: function matching on varied samples (Beyer et al., 2022, section 3); inner tensors as in FitNets (Romero et al.,
2015, equation 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
SLOWER = (1, 8)
"""The rate is divided by these, one after the other, until held-out samples say that steps are of use."""
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
    compared = _loss_weights(probe, [n for n in outputs if n in probe], [n for n in inner if n in probe], options.inner)
    gradient = gradient_graph(pruned, compared, {name: probe[name].shape for name in compared}, example)
    session = Session(gradient.proto, threads=options.threads)
    before = _distance(pruned, teacher, compared, draws, options.threads)
    for slower in SLOWER:
        descent = Descent(gradient.weights, gradient.matrices, options.rate / slower, options.steps)
        generator = np.random.default_rng(options.seed)
        for _ in range(options.steps):
            descent.step(_slopes(session, gradient, descent.weights, teacher, draws.step(generator)))
        result = _with_weights(pruned, gradient, descent.weights)
        after = _distance(result, teacher, compared, draws, options.threads)
        if after < before:
            return result, Distilled(before, after, options.steps)
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


def _loss_weights(
    probe: Mapping[str, Array], outputs: Sequence[str], inner: Sequence[str], share: float
) -> dict[str, float]:
    weights = {name: share / len(inner) for name in inner if share}
    for name in outputs:
        weights[name] = weights.get(name, 0.0) + 1.0 / len(outputs)
    if not weights:
        raise ModelError("no floating-point tensor can be compared with the original.")
    return {name: weight / max(float(probe[name].var()), 1e-12) for name, weight in weights.items()}


def _slopes(
    session: Session, gradient: Gradient, weights: Mapping[str, Array], teacher: _Teacher, feeds: Sequence[Feed]
) -> list[Array]:
    """Return the gradients, averaged over feeds."""
    total: list[Array] = []
    for feed in feeds:
        wanted = teacher(feed)
        targets = {target: wanted[name] for name, target in gradient.targets.items()}
        slopes = session.run(gradient.outputs()[1:], {**feed, **targets, **weights, **gradient.seed()})
        total = [a + b for a, b in zip(total, slopes, strict=True)] if total else slopes
    return [slope / np.float32(len(feeds)) for slope in total]


def _with_weights(model: Model, gradient: Gradient, weights: Mapping[str, Array]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    store = Weights(Model(proto, model.path, dict(model.pending)))
    for name, value in weights.items():
        if np.isfinite(value).all() and not np.array_equal(value, gradient.weights[name]):
            store.replace(name, value)
    return store.model


def _distance(
    model: Model, teacher: _Teacher, compared: Mapping[str, float], draws: Draws, threads: int | None
) -> float:
    """Return the loss on what is held out."""
    session, losses = Session(observed(model, compared), threads=threads, folder=model.folder), []
    for feed in draws.held_out():
        wanted, given = teacher(feed), dict(zip(compared, session.run(list(compared), feed), strict=True))
        losses.append(sum(weight * np.square(given[n] - wanted[n]).mean() for n, weight in compared.items()))
    return float(np.mean(losses))
