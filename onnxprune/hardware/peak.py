"""The peak of the activations' memory: what onnxruntime lays out for one sample at known sizes.

The graph is the one that onnxruntime runs after its fusions, without the layouts that depend on the CPU, so the figure
is the same on every machine. Where the sizes stay open until a run, onnxruntime's plan is another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.count import Shapes
from onnxprune.graph.embedded import embedded
from onnxprune.graph.model import Model, load
from onnxprune.graph.session import open_session
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.hardware.arena import Buffer, alive, buffers_of, bytes_of, room
from onnxprune.operators.call import Shape

LARGEST_BYTES = 1 << 30
"""Of a model: onnxruntime writes the graph that it runs to a file, weights and all."""
NORM = 16
"""Exponent of the norm over time that stands for the peak: several peaks of nearly the same height all count."""
CAST = "InsertedPrecisionFreeCast_"
"""What onnxruntime puts before the name of a tensor that it computes in float32 where it has no float16 kernel."""


@dataclass(frozen=True, eq=False)
class Activations:
    """The buffers of a model, and their bytes."""

    buffers: tuple[Buffer, ...]
    sizes: tuple[int, ...]

    @property
    def peak(self) -> int:
        """Bytes that they take together."""
        return room(self.buffers, self.sizes)

    @property
    def highest(self) -> tuple[str, ...]:
        """The tensors of the buffers that are there at the highest step, the largest first."""
        steps = alive(self.buffers, self.sizes)
        if not len(steps):
            return ()
        when = int(np.argmax(steps))
        there = [n for n, buffer in enumerate(self.buffers) if buffer.first <= when <= buffer.last and self.sizes[n]]
        return tuple(self.buffers[n].tensors[-1] for n in sorted(there, key=lambda n: -self.sizes[n]))

    def _scaled(self, before: Shapes, after: Shapes) -> list[float]:
        return [size * _scale(b, before, after) for b, size in zip(self.buffers, self.sizes, strict=True)]

    def height(self, before: Shapes, after: Shapes) -> float:
        """Return a smooth stand-in for the peak when tensors change their shapes, in bytes.

        Args:
            before, after: tensor -> shape, of the graph as it was written.
        """
        steps = alive(self.buffers, self._scaled(before, after))
        top = float(steps.max(initial=0.0))
        return top * float(np.sum((steps / top) ** NORM)) ** (1 / NORM) if top > 0 else 0.0


def activations(model: Model, sizes: Mapping[str, Shape] | None = None) -> Activations:
    """Return the buffers that onnxruntime plans for a model.

    Args:
        sizes: input -> full shape; an input that is missing has one sample, and what a trace chooses for other sizes.

    Raises:
        ModelError: onnxruntime refuses the model, or it is too large to be looked at this way.
    """
    if model.size_bytes > LARGEST_BYTES:
        raise ModelError(f"the peak of activations is not counted for models above {LARGEST_BYTES >> 20} MB.")
    fixed = _fixed(model, sample_sizes(model, sizes or {}))
    with scratch_folder() as folder:
        written = Path(folder) / "optimized.onnx"
        open_session(fixed, threads=1, level="extended", written=written).close()
        view = View(load(written))
        traced = trace(view, {})
        buffers = buffers_of(view, traced)
        return Activations(tuple(buffers), tuple(map(bytes_of(traced), buffers)))


def sample_sizes(model: Model, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of all inputs, for one sample where they are not given; nothing is traced where all are."""
    view = View(model)
    found = {key: given[key] for key in view.inputs if key in given}
    if len(found) == len(view.inputs):
        return found
    traced = trace(view, {})
    for key in view.inputs.keys() - found.keys():
        shape = traced.shapes.get(key)
        if shape is not None:
            found[key] = (1, *shape[1:]) if shape and traced.dynamic(key)[0] else shape
    return found


def _fixed(model: Model, sizes: Mapping[str, Shape]) -> onnx.ModelProto:
    """Return the graph with the sizes of its inputs written down, and its weights inside."""
    proto = embedded(model)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, sizes.get(value.name, ()), strict=False):
            dim.Clear()
            dim.dim_value = size
    return proto


def _scale(buffer: Buffer, before: Shapes, after: Shapes) -> float:
    """Return by how much a buffer shrinks: as the first of its tensors that is known."""
    for tensor in buffer.tensors:
        key = tensor.removeprefix(CAST)
        if key in before and key in after and (old := prod(before[key])):
            return prod(after[key]) / old
    return 1.0
