"""Gradient steps after the refit: the pruned network learns to give what the original gives, without labels.

The loss is the squared distance of the outputs and of inner sums at their kept positions, each relative to its variance
in the original. onnx-ad writes the gradient as an ONNX graph, onnxruntime runs it, numpy takes Adam steps. Samples are
varied (mixed in pairs, shifted, mirrored); the original says what is right for them, so no label is needed.
Source: function matching on mixed samples (Beyer et al., 2022, section 3); Adam (Kingma and Ba, 2015, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.compensate.gradient import Gradient, gradient_graph
from onnxprune.compensate.weights import Weights
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.session import Session
from onnxprune.types import Array

Cut = Callable[[Array], Array]
"""Takes a tensor of the original to the positions of the pruned network."""


@dataclass(frozen=True)
class DistilOptions:
    """How long and how fast.

    rate: size of the largest step, relative to the root mean square of the weights that it changes.
    inner: weight of all inner tensors together in the loss; the outputs together have 1.
    """

    steps: int = 400
    batch: int = 64
    rate: float = 0.03
    inner: float = 4.0
    mix: bool = False
    shift: bool = True
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class Distilled:
    """Loss on held-out samples before and after, relative to the variance of the original's tensors."""

    before: float
    after: float


def distil(
    original: Model,
    pruned: Model,
    outputs: Mapping[str, Cut],
    inner: Mapping[str, Cut],
    feed: Feed,
    options: DistilOptions,
) -> tuple[Model, Distilled]:
    """Return the pruned model after gradient steps, or as it was if held-out samples say that it got worse.

    Args:
        outputs: outputs of both networks to compare.
        inner: tensors inside both networks to compare.
        feed: all samples, axis 0 of every input counts them.

    Raises:
        ModelError: onnx-ad is missing or has no gradient of the model, or there are fewer than three samples.
    """
    count = len(next(iter(feed.values())))
    held = max(1, count // 8)
    batch = min(options.batch, count - held)
    if batch < 2:
        raise ModelError("gradient steps need at least three samples.")
    teacher = _Teacher(original, {**outputs, **inner}, options.threads)
    probe = teacher({name: array[:batch] for name, array in feed.items()})
    compared = _loss_weights(probe, list(outputs), list(inner), options.inner)
    shapes = {name: probe[name].shape for name in compared}
    gradient = gradient_graph(pruned, compared, shapes, {name: array[:batch] for name, array in feed.items()})
    session = Session(gradient.proto, threads=options.threads)
    training, test = ({n: a[:-held] for n, a in feed.items()}, {n: a[-held:] for n, a in feed.items()})
    weights = _descend(session, gradient, teacher, training, batch, options)
    result = _with_weights(pruned, gradient, weights)
    wanted = teacher(test)
    before, after = (_distance(m, wanted, compared, test, options.threads) for m in (pruned, result))
    if not after < before:
        return pruned, Distilled(before, before)
    return result, Distilled(before, after)


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
    weights = {name: 1.0 / len(outputs) for name in outputs} | {name: share / len(inner) for name in inner if share}
    return {name: weight / max(float(probe[name].var()), 1e-12) for name, weight in weights.items()}


def _descend(
    session: Session, gradient: Gradient, teacher: _Teacher, feed: Feed, batch: int, options: DistilOptions
) -> dict[str, Array]:
    """Take Adam steps whose size follows a cosine after a short rise."""
    generator = np.random.default_rng(options.seed)
    weights = dict(gradient.weights)
    sizes = {name: max(float(np.sqrt(np.square(w).mean())), 1e-3) for name, w in weights.items()}
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    outputs = gradient.outputs()
    for step in range(1, options.steps + 1):
        samples = vary(feed, batch, generator, mix=options.mix, shift=options.shift)
        targets = {
            gradient.targets[name]: value for name, value in teacher(samples).items() if name in gradient.targets
        }
        _, *slopes = session.run(outputs, {**samples, **targets, **weights, **gradient.seed()})
        rate = options.rate * min(1.0, step / 20) * 0.5 * (1 + np.cos(np.pi * step / (options.steps + 1)))
        for name, slope in zip(weights, slopes, strict=True):
            slope = slope.reshape(weights[name].shape)
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.99 * second[name] + 0.01 * np.square(slope)
            mean, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.99**step)
            weights[name] = weights[name] - np.float32(rate * sizes[name]) * mean / (
                np.sqrt(spread) + np.float32(1e-12)
            )
    return weights


def vary(feed: Feed, batch: int, generator: np.random.Generator, *, mix: bool, shift: bool) -> Feed:
    """Return a random batch; where all inputs are floating-point, samples are shifted, mirrored and mixed in pairs."""
    count = len(next(iter(feed.values())))
    chosen = generator.choice(count, batch, replace=count < batch)
    samples = {name: array[chosen] for name, array in feed.items()}
    if any(array.dtype.kind != "f" for array in samples.values()):
        return samples
    if shift:
        samples = {name: _shifted(array, generator) for name, array in samples.items()}
    if mix:
        partner = generator.permutation(batch)
        share = np.where(generator.random(batch) < 0.5, 1.0, generator.random(batch)).astype(np.float32)
        for name, array in samples.items():
            part = share.reshape(-1, *(1,) * (array.ndim - 1)).astype(array.dtype)
            samples[name] = part * array + (1 - part) * array[partner]
    return samples


def _shifted(array: Array, generator: np.random.Generator) -> Array:
    """Move images by up to a twelfth of their size, repeating the border, and mirror half of them."""
    if array.ndim != 4:
        return array
    rows, columns = (2, 3) if array.shape[1] in (1, 3, 4) else (1, 2)
    result = np.empty_like(array)
    for number, image in enumerate(array):
        picture = image
        for axis in (rows - 1, columns - 1):
            size = picture.shape[axis]
            reach = size // 12
            index = np.clip(np.arange(size) + generator.integers(-reach, reach + 1), 0, size - 1)
            picture = np.take(picture, index, axis=axis)
        result[number] = np.flip(picture, columns - 1) if generator.random() < 0.5 else picture
    return result


def _with_weights(model: Model, gradient: Gradient, weights: Mapping[str, Array]) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    store = Weights(Model(proto, model.path, dict(model.pending)))
    for name, value in weights.items():
        if np.isfinite(value).all() and not np.array_equal(value, gradient.weights[name]):
            store.replace(name, value)
    return store.model


def _distance(
    model: Model, wanted: Mapping[str, Array], compared: Mapping[str, float], feed: Feed, threads: int | None
) -> float:
    session = Session(observed(model, compared), threads=threads, folder=model.folder)
    given = dict(zip(compared, session.run(list(compared), feed), strict=True))
    return float(sum(weight * np.square(given[name] - wanted[name]).mean() for name, weight in compared.items()))
