"""What activations look like, tensor by tensor, on a working copy: one pass, batch after batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx

from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.collect import observed
from onnxprune.statistics.moments import Accumulator
from onnxprune.types import Array, FloatArray

Feeds = Mapping[str, Array]


def each(
    proto: onnx.ModelProto,
    names: Sequence[str],
    feeds: Iterable[Feeds],
    take: Callable[[str, Array], None],
    threads: int,
) -> None:
    """Run the model and hand every named tensor of every batch to `take`."""
    inputs = {value.name for value in proto.graph.input}
    made = [name for name in dict.fromkeys(names) if name not in inputs]
    session = open_session(observed(Model(proto), made), threads=threads)
    for feed in feeds:
        found = session.values(made, dict(feed)) if made else []
        values = dict(zip(made, found, strict=True)) | dict(feed)
        for name in dict.fromkeys(names):
            take(name, values[name])


def grams(
    proto: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Feeds], threads: int = 0
) -> dict[str, FloatArray]:
    """Return the second moments (channels, channels) of tensors along their last axis."""
    sums = {name: Accumulator(-1, gram=True) for name in names}
    each(proto, names, feeds, lambda name, array: sums[name].add(array), threads)
    found = {name: accumulator.result().gram for name, accumulator in sums.items()}
    return {name: gram for name, gram in found.items() if gram is not None}


def largest(
    proto: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Feeds], threads: int = 0
) -> dict[str, FloatArray]:
    """Return the largest absolute value (channels,) of tensors along their last axis."""
    found: dict[str, FloatArray] = {}

    def take(name: str, array: Array) -> None:
        high = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0, initial=0.0)
        found[name] = np.maximum(found[name], high) if name in found else high

    each(proto, names, feeds, take, threads)
    return found
