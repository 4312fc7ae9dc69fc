"""Second moments of what layers multiply, im2col patches included, in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.methods.linear import Linear
from onnxprune.statistics.collect import BATCH, GRAM_BYTES, observed
from onnxprune.statistics.data import Data
from onnxprune.types import Array

ROWS = 16_000
ROWS_PER_FEATURE = 6
CHUNK = 2048


def second_moments(
    model: Model, layers: Sequence[Linear], data: Data, *, threads: int | None = None, provider: str | None = None
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return layer name -> (features, features) second moment of its input, and notes on what was left out.

    Layers of subgraphs have none, nor have those whose matrices together would take more than GRAM_BYTES, the
    largest first.
    """
    main = {name for node in model.proto.graph.node for name in node.output}
    main |= {value.name for value in model.proto.graph.input}
    seen = [layer for layer in layers if _x(layer) in main and _y(layer) in main]
    granted, notes = _granted(seen)
    inputs = {value.name for value in model.proto.graph.input}
    names = sorted({name for layer in granted for name in (_x(layer), _y(layer)) if name not in inputs})
    session = open_session(observed(model, names), threads=threads, provider=provider, folder=model.folder)
    sums = {layer.name: np.zeros((_features(layer), _features(layer))) for layer in granted}
    counts = dict.fromkeys(sums, 0)
    batches = max(1, -(-data.samples // BATCH))
    for number, feed in enumerate(data.batches(BATCH)):
        values = dict(zip(names, session.values(names, feed), strict=True)) | feed
        for layer in granted:
            rows = layer.layout.inputs(values[_x(layer)], values[_y(layer)].shape)
            wanted = max(1, max(ROWS, ROWS_PER_FEATURE * _features(layer)) // batches)
            chosen = np.arange(rows.count)
            if wanted < rows.count:
                chosen = np.sort(np.random.default_rng(number).choice(rows.count, wanted, replace=False))
            for start in range(0, len(chosen), CHUNK):
                block = rows.rows(chosen[start : start + CHUNK])[0].astype(np.float32, copy=False)
                sums[layer.name] += block.T @ block
            counts[layer.name] += len(chosen)
    return {name: sums[name] / max(1, counts[name]) for name in sums}, tuple(notes)


def _granted(layers: Sequence[Linear]) -> tuple[list[Linear], list[str]]:
    left, granted, notes = GRAM_BYTES, [], []
    for layer in sorted(layers, key=_features):
        size = 8 * _features(layer) ** 2
        if size > left:
            notes.append(f"no second moment of the input of '{layer.name}': it would take {size >> 20} MB more")
            continue
        left -= size
        granted.append(layer)
    return granted, notes


def _x(layer: Linear) -> str:
    """The input that is multiplied, by its name in the main graph."""
    return layer.node.inputs[0 if layer.index else 1]


def _y(layer: Linear) -> str:
    return next(name for name in layer.node.outputs if name)


def _features(layer: Linear) -> int:
    return int(layer.layout.matrix(np.broadcast_to(np.float32(0), layer.dims)).shape[2])
