"""Small changes of inputs that should not change what a model says: noise, brightness, shifts, steps against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.compensate.gradient import differentiable
from onnxprune.errors import ModelError
from onnxprune.evidence.kinds import SCORES, Kind
from onnxprune.graph.model import Model
from onnxprune.graph.session import Feeds, Session, open_session
from onnxprune.score.gradients import LOSS, derivative_of_projection
from onnxprune.types import Array

NOISE, BRIGHTNESS, SHIFT, FGSM = 0.2, 0.2, 1, 0.05
"""Shares of an input's standard deviation; positions; share of the standard deviation."""
LEAST_SIDE = 8
"""Axes of an image that are shorter are channels."""

Change = Callable[[Array, float, np.random.Generator], Array]
"""(values, their standard deviation, chance) -> changed values."""


def with_noise(values: Array, spread: float, chance: np.random.Generator) -> Array:
    """Return x + 0.2 s z with normal z."""
    return np.asarray(values + NOISE * spread * chance.standard_normal(values.shape))


def brighter(values: Array, spread: float, chance: np.random.Generator) -> Array:
    """Return x + 0.2 s."""
    return np.asarray(values + BRIGHTNESS * spread)


def darker(values: Array, spread: float, chance: np.random.Generator) -> Array:
    """Return x - 0.2 s."""
    return np.asarray(values - BRIGHTNESS * spread)


def shifted(values: Array, spread: float, chance: np.random.Generator) -> Array:
    """Return images moved by one pixel along both sides, the border repeated; anything else as it is."""
    for axis in sides(values.shape):
        places = np.clip(np.arange(values.shape[axis]) - SHIFT, 0, None)
        values = np.take(values, places, axis)
    return values


def sides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the two axes of an image that are its sides; none of what is no image."""
    longest = sorted(range(1, len(shape)), key=lambda axis: (-shape[axis], -axis))[:2]
    is_image = len(shape) == 4 and len(longest) == 2 and min(shape[axis] for axis in longest) >= LEAST_SIDE
    return tuple(sorted(longest)) if is_image else ()


CHANGES: dict[str, Change] = {"noise": with_noise, "brighter": brighter, "darker": darker, "shift": shifted}


def changeable(feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return the float inputs that vary, with their standard deviation over all samples."""
    found = {}
    for name, values in feeds[0].items():
        if values.dtype.kind == "f" and values.size > 1:
            spread = float(np.sqrt(np.mean([np.var(feed[name].astype(np.float64)) for feed in feeds])))
            if np.isfinite(spread) and spread > 0:
                found[name] = spread
    return found


def changed(feed: Feeds, spreads: Mapping[str, float], change: Change, chance: np.random.Generator) -> dict[str, Array]:
    """Return a feed with all float inputs changed."""
    moved = {
        name: change(feed[name].astype(np.float64), spread, chance).astype(feed[name].dtype)
        for name, spread in spreads.items()
    }
    return {**feed, **moved}


@dataclass(frozen=True, eq=False)
class Attack:
    """Steps against one model: x + 0.05 s sign(dL/dx), L = the runner-up's score less the winner's.

    For outputs that are no scores, L is the change along a fixed random direction.

    Source: Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples, section 4.
    """

    session: Session
    shapes: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    spreads: Mapping[str, float]

    def __call__(self, feed: Feeds, given: Mapping[str, Array], kinds: Mapping[str, Kind]) -> dict[str, Array] | None:
        """Return the changed feed; None where its sizes are others than those of the first one.

        Args:
            given: what the model gives for the feed as it is.
        """
        if any(feed[name].shape != shape for name, shape in self.shapes.items()):
            return None
        directions = {f"{name}.projection": _direction(given[name], kinds.get(name)) for name in self.outputs}
        names = [name for name in self.spreads if name in self.shapes]
        seed = {f"adj_{LOSS}": np.ones((1, 1), np.float32)}
        fed = {name: feed[name] for name in self.shapes}
        slopes = self.session.values([f"adj_{name}" for name in names], fed | seed | directions)
        moved = {
            name: (feed[name] + FGSM * self.spreads[name] * np.sign(slope.reshape(feed[name].shape))).astype(np.float32)
            for name, slope in zip(names, slopes, strict=True)
        }
        return {**feed, **moved}


def _direction(given: Array, kind: Kind | None) -> Array:
    """Return dL / dy of one output."""
    direction = np.zeros(given.shape, np.float32)
    axis = kind.axis if kind is not None and kind.name == SCORES else None
    if axis is None or given.shape[axis] < 2:
        return np.random.default_rng(0).choice([-1.0, 1.0], given.shape).astype(np.float32)
    order = np.argsort(np.nan_to_num(given), axis=axis, kind="stable")
    first, second = (np.take(order, [place], axis=axis) for place in (-1, -2))
    np.put_along_axis(direction, first, -1.0, axis)
    np.put_along_axis(direction, second, 1.0, axis)
    return direction


def open_attack(
    model: Model, feed: Feeds, given: Mapping[str, Array], spreads: Mapping[str, float], threads: int
) -> Attack:
    """Return the attack on a model for feeds of these sizes.

    Raises:
        ModelError: an operator has no derivative, or onnx-ad is missing.
    """
    proto = differentiable(model, feed)
    floats = {name: array.shape for name, array in given.items() if array.dtype == np.float32 and array.size}
    inputs = [v.name for v in proto.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    wanted = [name for name in inputs if name in spreads]
    if not floats or not wanted:
        raise ModelError("no float32 output depends on a float32 input")
    shapes = {value.name: feed[value.name].shape for value in proto.graph.input}
    session = open_session(derivative_of_projection(proto, wanted, floats), threads=threads)
    return Attack(session, shapes, floats, {name: spreads[name] for name in wanted})


def unmoved(feeds: Sequence[Feeds], spreads: Mapping[str, float]) -> Iterator[str]:
    """Yield the changes that leave these inputs as they are."""
    if not any(sides(feeds[0][name].shape) for name in spreads):
        yield "shift"
