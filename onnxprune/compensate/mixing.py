"""Put mixtures of channels where mixtures may stay: measure on the original, write into the pruned network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.compensate.mixtures import Mixture, Place, best_mixture, find_places
from onnxprune.compensate.readers import HIDDEN, Consumers, Reader, find_readers
from onnxprune.compensate.stages import Opener
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed
from onnxprune.statistics.moments import Accumulator
from onnxprune.types import FloatArray, IntArray


def mix(
    original: Model,
    weights: Weights,
    positions: Mapping[str, Sequence[IntArray | None]],
    feeds: Sequence[Feed],
    opener: Opener,
    only: frozenset[str] | None = None,
) -> dict[str, Mixture]:
    """Replace kept channels by the best mixtures in every place that allows it.

    Args:
        only: outputs of the layers that may change, None: all.

    Returns:
        the mixture of every tensor that has one.
    """
    readers = find_readers(weights)
    old = {reader.node.output[0]: reader for reader in find_readers(Weights(original))}
    places = find_places(weights.model.proto.graph, readers, Consumers(weights.model.proto.graph), positions)
    places = [place for place in places if all(_can_change(r, old) for r in (*place.writers, *place.readers))]
    if only is not None:
        places = [p for p in places if all(r.node.output[0] in only for r in (*p.writers, *p.readers))]
    if not places:
        return {}
    covariances = _covariances(original, places, feeds, opener)
    mixtures: dict[str, Mixture] = {}
    for place in places:
        channels = [old[reader.node.output[0]] for reader in place.readers]
        blocks = [_by_channel(r.effective[0, :, :-1], covariances[r.x].shape[0]) for r in channels]
        mixture = best_mixture(place, blocks, [covariances[r.x] for r in channels])
        mixtures.update((name, mixture) for name in place.tensors)
    touched = {id(r): r for place in places for r in (*place.writers, *place.readers)}
    for reader in touched.values():
        before = old[reader.node.output[0]]
        reader.store(weights, _mixed(reader, before, mixtures, positions))
    return mixtures


def _can_change(reader: Reader, old: Mapping[str, Reader]) -> bool:
    smallest = np.abs(reader.scale).min() > HIDDEN * np.abs(reader.scale).max()
    return bool(smallest) and reader.node.output[0] in old


def _covariances(
    original: Model, places: Sequence[Place], feeds: Sequence[Feed], opener: Opener
) -> dict[str, FloatArray]:
    names = sorted({reader.x for place in places for reader in place.readers})
    session = opener(observed(original, names))
    sums = {name: Accumulator(1, gram=True) for name in names}
    for feed in feeds:
        for name, array in zip(names, session.values(names, feed), strict=True):
            sums[name].add(array)
    return {name: total.result().covariance for name, total in sums.items()}


def _by_channel(matrix: FloatArray, channels: int) -> FloatArray:
    """Return (outs, taps, channels) of (outs, taps * channels)."""
    return matrix.reshape(len(matrix), -1, channels)


def _mixed(
    reader: Reader,
    before: Reader,
    mixtures: Mapping[str, Mixture],
    positions: Mapping[str, Sequence[IntArray | None]],
) -> FloatArray:
    """Return the original's weights, mixed or cut on both sides, like `Reader.effective` of a reader of one group."""
    effective = before.effective[0]
    matrix, bias = effective[:, :-1], effective[:, -1]
    if reader.y in mixtures:
        project = mixtures[reader.y].project
        matrix, bias = project @ matrix, project @ bias
    else:
        kept = _kept_channels(reader.y, positions)
        matrix, bias = (matrix, bias) if kept is None else (matrix[kept], bias[kept])
    taps = reader.sizes[2] // _width(reader)
    blocks = matrix.reshape(len(matrix), taps, -1)
    if reader.x in mixtures:
        blocks = blocks @ mixtures[reader.x].restore
    else:
        kept = _kept_channels(reader.x, positions)
        blocks = blocks if kept is None else blocks[:, :, kept]
    return np.concatenate([blocks.reshape(len(matrix), -1), bias[:, None]], axis=1)[None]


def _width(reader: Reader) -> int:
    """Channels that the pruned reader reads."""
    shape = reader.like.shape
    return int(np.prod(shape)) // reader.sizes[1] // int(np.prod(shape[2:]))


def _kept_channels(name: str, positions: Mapping[str, Sequence[IntArray | None]]) -> IntArray | None:
    axes = positions.get(name, ())
    return axes[1] if len(axes) > 1 else None
