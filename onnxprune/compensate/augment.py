"""Variations of samples for gradient steps, and which of them a network can bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

KINDS = ("flip", "shift")
"""Mirrored left to right, half of the samples; moved by up to a twelfth of the size, the border repeated."""
BEARABLE = 0.5
"""A variation is taken where it changes what the network gives less than this share of what another sample does."""
REACH = 12


def read_kinds(text: str) -> tuple[str, ...] | None:
    """Return the variations that a text names; None for "auto".

    Raises:
        UsageError: an unknown one.
    """
    if text == "auto":
        return None
    names = () if text == "none" else tuple(word.strip() for word in text.split(","))
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise UsageError(f"augment '{unknown[0]}': give auto, none, or some of {', '.join(KINDS)} between commas.")
    return names


def varied(feed: Mapping[str, Array], kinds: Sequence[str], generator: np.random.Generator) -> Feed:
    """Return the samples of a feed, those of images varied; all images of a sample in the same way."""
    images = {name: axes for name, array in feed.items() if (axes := image_axes(array)) is not None}
    if not kinds or not images:
        return dict(feed)
    result = {name: np.empty_like(array) if name in images else array for name, array in feed.items()}
    for number in range(len(next(iter(feed[name] for name in images)))):
        flips, moves = generator.random() < 0.5, generator.uniform(-1, 1, 2)
        for name, axes in images.items():
            picture = feed[name][number]
            if "shift" in kinds:
                for axis, move in zip(axes, moves, strict=True):
                    size = picture.shape[axis]
                    reach = round(move * (size // REACH))
                    picture = np.take(picture, np.clip(np.arange(size) + reach, 0, size - 1), axis=axis)
            result[name][number] = np.flip(picture, axes[1]) if flips and "flip" in kinds else picture
    return result


def image_axes(array: Array) -> tuple[int, int] | None:
    """Return the axes of rows and columns of one sample; None where samples are no images."""
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    return (1, 2) if array.shape[1] in (1, 3, 4) else (0, 1) if array.shape[3] in (1, 3, 4) else None


def bearable(network: Callable[[Feed], Sequence[Array]], feed: Feed, seed: int = 0) -> tuple[str, ...]:
    """Return the variations that change what a network gives much less than another sample does.

    So a classifier of clothes is shown mirrored ones, a reader of text or of spectrograms is not.

    Args:
        network: gives what it says of a feed, floating-point arrays with samples along axis 0.
        feed: some samples, at least two.
    """
    if not any(image_axes(array) is not None for array in feed.values()):
        return ()
    plain = network(feed)
    others = network({name: np.roll(array, 1, axis=0) for name, array in feed.items()})
    usual = _distance(plain, others)
    taken = []
    for kind in KINDS:
        generator = np.random.default_rng(seed)
        # a mirrored half would hide half of the difference
        changed = (
            {n: np.flip(a, axes[1] + 1).copy() if (axes := image_axes(a)) else a for n, a in feed.items()}
            if kind == "flip"
            else varied(feed, (kind,), generator)
        )
        if usual > 0 and _distance(plain, network(changed)) < BEARABLE * usual:
            taken.append(kind)
    return tuple(taken)


def _distance(ones: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the mean distance of what is given for single samples, over all outputs, each by its own scale."""
    found = []
    for one, other in zip(ones, others, strict=True):
        scale = float(np.square(one, dtype=np.float64).mean()) + 1e-30
        found.append(float(np.square(one - other, dtype=np.float64).mean()) / scale)
    return float(np.sqrt(np.mean(found)))
