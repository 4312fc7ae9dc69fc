"""Variations of samples for gradient steps, and which of them a network can bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

KINDS = ("flip", "shift", "mix")
"""Mirrored left to right, half of the samples; moved by up to a twelfth of the size, the border repeated; half of the
samples mixed with another one, in shares from 0 to 1."""
MANY = 650
"""In fewer steps samples that are mixed bring less than samples as they are."""
BEARABLE = 0.5
"""A variation is taken where it changes what the network gives less than this share of what another sample does."""
SURE = 0.5
"""Samples are mixed where what the network gives differs among mixtures this share of what it does among samples."""
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
    """Return the samples of a feed, those of images mirrored and moved; all images of a sample in the same way."""
    images = {name: axes for name, array in feed.items() if (axes := image_axes(array)) is not None}
    if not {"flip", "shift"}.intersection(kinds) or not images:
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


def can_mix(feed: Mapping[str, Array]) -> bool:
    """Tell whether samples can be mixed: all are of floating-point numbers, and there are two of them."""
    arrays = list(feed.values())
    return bool(arrays) and all(a.dtype.kind == "f" and a.ndim > 0 and len(a) == len(arrays[0]) > 1 for a in arrays)


def mixed(feed: Mapping[str, Array], generator: np.random.Generator, often: float = 0.5) -> Feed:
    """Return the samples of a feed, some of them mixed with another one: all arrays of a sample with the same shares.

    Args:
        often: the chance of a sample to be mixed.

    Source: mixup (Zhang et al., 2018, equation 1) with shares that are all as likely, as Beyer et al., 2022, use it.
    """
    count = _count(feed)
    partners, shares = generator.permutation(count), generator.uniform(0, 1, count)
    shares = np.where(generator.random(count) < often, shares, 1.0)

    def mixture(array: Array) -> Array:
        own = shares.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
        return np.asarray(own * array + (1 - own) * array[partners])

    return {name: mixture(array) for name, array in feed.items()}


def image_axes(array: Array) -> tuple[int, int] | None:
    """Return the axes of rows and columns of one sample; None where samples are no images."""
    if array.ndim != 4 or array.dtype.kind != "f":
        return None
    return (1, 2) if array.shape[1] in (1, 3, 4) else (0, 1) if array.shape[3] in (1, 3, 4) else None


def bearable(
    network: Callable[[Feed], Sequence[Array]], feed: Feed, seed: int = 0, mixing: bool = False
) -> tuple[str, ...]:
    """Return the variations that a network bears.

    Images are mirrored and moved where that changes what the network gives much less than another sample does: so a
    classifier of clothes is shown mirrored ones, a reader of text or of spectrograms is not. Samples are mixed where
    the network tells mixtures from each other about as well as samples.

    Args:
        network: gives what it says of a feed, floating-point arrays with samples along axis 0.
        feed: some samples, at least two.
        mixing: samples may be mixed; that pays where steps are `MANY`.
    """
    images = any(image_axes(array) is not None for array in feed.values())
    mixing = mixing and can_mix(feed)
    if not images and not mixing:
        return ()

    def given(feed: Feed) -> list[Array]:
        return [array for array in network(feed) if array.dtype.kind == "f"]

    plain, taken = given(feed), []
    if images:
        usual = _distance(plain, given({name: np.roll(array, 1, axis=0) for name, array in feed.items()}))
        mirrored = {n: np.flip(a, axes[1] + 1).copy() if (axes := image_axes(a)) else a for n, a in feed.items()}
        # a mirrored half would hide half of the difference
        for kind, changed in ("flip", mirrored), ("shift", varied(feed, ("shift",), np.random.default_rng(seed))):
            if usual > 0 and _distance(plain, given(changed)) < BEARABLE * usual:
                taken.append(kind)
    if mixing and _tells(plain, given(mixed(feed, np.random.default_rng(seed), often=1.0)), _count(feed)):
        taken.append("mix")
    return tuple(taken)


def _count(feed: Mapping[str, Array]) -> int:
    return len(next(iter(feed.values())))


def _tells(plain: Sequence[Array], mixtures: Sequence[Array], count: int) -> bool:
    """Tell whether what is given differs among mixtures about as much as among samples, for every output of samples."""
    shares = []
    for one, other in zip(plain, mixtures, strict=True):
        if one.shape[:1] == (count,) and (usual := _spread(one)) > 0:
            shares.append(_spread(other) / usual)
    return bool(shares) and min(shares) >= SURE**2


def _spread(array: Array) -> float:
    """Return the mean variance over axis 0."""
    return float(array.astype(np.float64).var(axis=0).mean()) if array.size else 0.0


def _distance(ones: Sequence[Array], others: Sequence[Array]) -> float:
    """Return the mean distance of what is given for single samples, over all outputs, each by its own scale."""
    found = []
    for one, other in zip(ones, others, strict=True):
        scale = float(np.square(one, dtype=np.float64).mean()) + 1e-30
        found.append(float(np.square(one - other, dtype=np.float64).mean()) / scale)
    return float(np.sqrt(np.mean(found)))
