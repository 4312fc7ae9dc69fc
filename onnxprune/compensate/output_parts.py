"""The refit of a layer with so many outputs that its matrices do not fit into the memory: some outputs at a time.

Outputs of a least-squares problem do not know of each other, so nothing is lost; each part has a strength of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil

import numpy as np

from onnxprune.compensate.lstsq import fit
from onnxprune.compensate.problem import COPIES, ROWS_SHARE, Fit, LstsqOptions, Problem
from onnxprune.compensate.readers import Reader, Sink
from onnxprune.compensate.weights import Weights
from onnxprune.operators.layouts import Dense
from onnxprune.types import Array, FloatArray

MATRICES = 9
"""Matrices of doubles, outputs times features, at one time: moments with targets, weights, and what comes between."""
LEAST_SHARE = 0.125
"""Share of the memory that parts get at least, where products of features take the rest."""


def parts_of(reader: Reader, options: LstsqOptions) -> list[slice]:
    """Return the outputs that are fitted at a time."""
    _, outs, features = reader.sizes
    needed = 8.0 * MATRICES * (features + 1) * outs
    room = (1 - ROWS_SHARE) * options.memory - 8 * COPIES * (features + 1) ** 2
    count = ceil(needed / max(room, LEAST_SHARE * options.memory, 1.0))
    if count <= 1 or not isinstance(reader.layout, Dense):
        return [slice(0, outs)]
    step = -(-outs // count)
    return [slice(start, min(outs, start + step)) for start in range(0, outs, step)]


def fit_parts(
    reader: Reader,
    parts: Sequence[slice],
    weights: Weights,
    problem: Callable[[Reader, slice], Problem],
    options: LstsqOptions,
) -> Fit:
    """Give a reader the weights of its parts, and return the errors of all of them, without the weights."""
    layout = reader.layout
    if not isinstance(layout, Dense):
        raise TypeError(f"'{reader.name}' has no parts")
    made, bias = weights.room(reader.node.input[reader.weight_index]), np.zeros(parts[-1].stop)
    before, after, level, bounded = 0.0, 0.0, 0.0, ""
    stored = reader.weight  # read, and cut, once for all parts
    reader = replace(reader, read=lambda: stored)
    for outs in parts:
        part = part_of(reader, outs)
        found = fit(problem(part, outs), options)
        layout.outputs_of(made, outs)[...] = part.stored(found.weights)
        bias[outs] = found.weights[0, :, -1]
        before, after, level = before + found.before, after + found.after, level + found.level
        bounded = bounded or found.bounded
    result = Fit(np.zeros(0), before, after, level, bounded)
    if result.used:
        weights.change(reader.node, reader.weight_index, made)
        reader.store_bias(weights, bias)
    return result


def part_of(reader: Reader, outs: slice) -> Reader:
    """Return the reader as if it had some of its outputs."""
    layout = reader.layout
    if not isinstance(layout, Dense):
        raise TypeError(f"'{reader.name}' has no parts")
    sink = reader.sink and _sink_of(reader.sink, outs)
    like = layout.outputs_of(reader.like, outs)
    return replace(
        reader, like=like, read=lambda: layout.outputs_of(reader.read(), outs), scale=reader.scale[outs], sink=sink
    )


def some_outputs(reader: Reader, array: Array, outs: slice) -> Array:
    """Return some of the outputs in what a reader gives."""
    index = [slice(None)] * array.ndim
    index[reader.layout.output_axis if isinstance(reader.layout, Dense) else -1] = outs
    return array[tuple(index)]


def _sink_of(sink: Sink, outs: slice) -> Sink:
    def some(values: FloatArray | float) -> FloatArray | float:
        return values[outs] if isinstance(values, np.ndarray) and values.ndim else values

    return replace(sink, stored=sink.stored[outs], factor=some(sink.factor), shift=some(sink.shift))
