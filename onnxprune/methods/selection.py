"""The samples that say most: those that stand nearest to all others in what the original makes of them.

Each sample is described by what the last layer with weights reads (penultimate features), every feature in units of its
spread over all samples. Chosen are, one after the other, those that bring the sum over all samples of the squared
distance to the nearest chosen one down furthest. No label is needed, and the original runs once over the data.
Source: facility location, greedily (Wei, Iyer and Bilmes, 2015, Submodularity in data subset selection, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from onnxprune.compensate.distil import before_last
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.methods.runtime import Runtime
from onnxprune.operators.call import attributes_of
from onnxprune.operators.operator import operator_of
from onnxprune.statistics.collect import observed
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed, can_stack, fixed_batch
from onnxprune.statistics.split import part, places
from onnxprune.types import Array, BoolArray

MOST_FEATURES = 512
"""More features than these are projected at random onto so many: distances stay about what they are."""
ASKED, OFFERED, PARTS = 4096, 16_384, 64
"""So many samples are asked how near the chosen ones are, out of so many that may be chosen, at most."""
MOST_ASIDE = 128
BATCH = 19
"""Samples of a run; a number that no other axis is likely to have, so that theirs is recognised."""


def selected(model: Model, data: Data, count: int | None, runtime: Runtime | None = None) -> Data:
    """Return the samples that say most, in the order in which they came; all where there are no more.

    Args:
        model: the original. count: how many; None: all.

    Raises:
        UsageError: the model's batch is fixed and larger, or no output has one value for each sample.
    """
    return data if count is None else part(data, chosen(model, data, count, runtime))


def rest_of(data: Data, some: Data) -> Data | None:
    """Return samples that were not chosen, at most `MOST_ASIDE`: nothing is fitted to them, so steps are judged there.

    Args:
        some: what `selected` chose of the data.
    """
    keep = np.ones(data.samples, bool)
    keep[np.searchsorted(places(data), places(some))] = False
    spare = np.flatnonzero(keep)[:MOST_ASIDE]
    keep[:] = False
    keep[spare] = True
    return part(data, keep) if keep.any() else None


def chosen(model: Model, data: Data, count: int, runtime: Runtime | None = None) -> BoolArray:
    """Return (samples,): True for those that say most; see `selected`."""
    size = fixed_batch(data.inputs) if can_stack(data.inputs) else None
    if size and count < size:
        raise UsageError(f"select {count}: the model takes {size} samples at once; choose as many or more.")
    keep = np.ones(data.samples, bool)
    if count < data.samples:
        found = features(model, data, runtime)
        keep[:] = False
        keep[representatives(found, count)] = True
    return keep


def representatives(rows: Array, count: int) -> Array:
    """Return the numbers of `count` rows of (samples, features) that stand for all of them, the best first."""
    generator = np.random.default_rng(0)
    asked = np.sort(generator.permutation(len(rows))[:ASKED])
    offered = np.sort(generator.permutation(len(rows))[: max(count, OFFERED)])
    left = np.square(rows[asked]).sum(axis=1)  # the mean stands for all as long as nobody is chosen
    distances = _distances(rows[offered], rows[asked])
    free = np.ones(len(offered), bool)
    taken = []
    for _ in range(count):
        gains = np.concatenate([np.maximum(left - part, 0).sum(axis=1) for part in np.array_split(distances, PARTS)])
        place = int(np.argmax(np.where(free, gains, -1.0)))
        free[place] = False
        taken.append(place)
        left = np.minimum(left, distances[place])
    return offered[taken]


def _distances(some: Array, others: Array) -> Array:
    """Return (some, others) squared distances."""
    squares = np.square(some).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * some @ others.T, 0), np.float32)


def features(model: Model, data: Data, runtime: Runtime | None = None) -> Array:
    """Return (samples, features): what the last layers read, around the mean, each feature in units of its spread.

    Where a layer reads many positions of a sample, these are mean and standard deviation over them.
    """
    runtime = runtime or Runtime()
    wanted = penultimate(model.proto.graph)
    if not wanted:
        raise UsageError("select: the model has no floating-point output that samples could be compared by.")
    names = list(wanted)
    session = open_session(
        observed(model, names), threads=runtime.threads, provider=runtime.provider, folder=model.folder
    )
    made = [name for name in names if name not in {spec.name for spec in data.inputs}]
    parts: list[Array] = []
    places: dict[str, int | None] = {}
    for count, feed in _feeds(data):
        values = {**feed, **dict(zip(made, session.values(made, feed) if made else (), strict=True))}
        places = places or {name: _sample_axis(values[name], axis, count) for name, axis in wanted.items()}
        rows = [_rows(values[name], axis, places[name], count) for name, axis in wanted.items()]
        parts.append(np.concatenate(rows, axis=1))
    if len({part.shape[1] for part in parts}) > 1:
        raise UsageError("select: samples have features of different number, so they cannot be compared.")
    found = np.concatenate(parts)
    # a fixed batch leaves what does not fill one out; the mean stands for none but itself
    missing = np.broadcast_to(found.mean(axis=0), (data.samples - len(found), found.shape[1]))
    return _spread(np.concatenate([found, missing]))


def _spread(rows: Array) -> Array:
    rows = rows - rows.mean(axis=0)
    rows = rows / (rows.std(axis=0) + 1e-6 * np.abs(rows).max(initial=1e-12))
    if rows.shape[1] > MOST_FEATURES:
        drawn = np.random.default_rng(0).standard_normal((rows.shape[1], MOST_FEATURES)).astype(np.float32)
        rows = rows @ drawn / np.float32(np.sqrt(rows.shape[1]))
    return np.asarray(rows, np.float32)


def _feeds(data: Data) -> Iterator[tuple[int, Feed]]:
    """Yield feeds with how many samples they have; None of them is stacked where axis 0 counts something else."""
    if all(unit.stacked for unit in data.stream):
        for feed in data.batches(BATCH):
            yield len(next(iter(feed.values()))), feed
        return
    for unit in data.stream:
        for offset in range(unit.samples):
            feed = {n: a[offset : offset + 1] if unit.stacked else a for n, a in unit.feed.items()}
            yield 1, feed


def _sample_axis(value: Array, channels: int, samples: int) -> int | None:
    """Return the axis that counts samples; None: the first one does, together with positions."""
    found = [axis for axis, size in enumerate(value.shape) if size == samples and axis != channels % value.ndim]
    if found:
        return found[0]
    if not value.ndim or value.shape[0] % samples:
        raise UsageError("select: what the last layer reads has no axis of samples, so they cannot be compared.")
    return None


def _rows(value: Array, channels: int, samples_axis: int | None, samples: int) -> Array:
    """Return (samples, features) of a tensor."""
    channels %= value.ndim
    if samples_axis is not None and channels != samples_axis:
        value = np.moveaxis(value, (samples_axis, channels), (0, -1))
    rows = value.reshape(samples, -1, value.shape[-1]).astype(np.float32)
    mean = rows.mean(axis=1)
    return mean if rows.shape[1] == 1 else np.concatenate([mean, rows.std(axis=1)], axis=1)


def penultimate(graph: onnx.GraphProto) -> dict[str, int]:
    """Return tensor -> its axis of channels: what the last layer with weights before every output reads.

    An output without one stands for itself.
    """
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    found: dict[str, int] = {}
    for value in graph.output:
        if value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            name, axis = _read_last(before_last(graph, value.name), makers, stored)
            found[name] = axis
    return found


def _read_last(name: str, makers: dict[str, onnx.NodeProto], stored: set[str]) -> tuple[str, int]:
    here, seen = name, set[str]()
    while here in makers and here not in seen:
        seen.add(here)
        node = makers[here]
        axis = _read_axis(node, stored)
        if axis is not None:
            return axis
        computed = [given for given in node.input if given in makers and given not in stored]
        if not computed:
            break
        here = computed[0]
    return name, 1


def _read_axis(node: onnx.NodeProto, stored: set[str]) -> tuple[str, int] | None:
    operator = operator_of(node)
    for contraction in operator.contractions(attributes_of(node)) if operator is not None else ():
        has = 0 <= contraction.data < len(node.input) and contraction.weight < len(node.input)
        if has and node.input[contraction.weight] in stored:
            return node.input[contraction.data], contraction.data_axis
    return None
