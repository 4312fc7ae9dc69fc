"""Where no nonlinearity stands between writers and readers, what stays need not be channels: any mixtures will do.

In such a place (a linear bottleneck, a residual sum without activation) x may be replaced by P x, if the writers are
multiplied by P and the readers by R with R P near the identity. P spans what the readers see most of: the principal
components of the covariance in the metric of the readers' weights, M^(1/2) Cov M^(1/2), M = sum of W^T W.
Source: rotation of a residual stream as in SliceGPT (Ashkboos et al., 2024, eq. 2-5), with the readers' metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.compensate.readers import Consumers, Reader
from onnxprune.operators.layouts import Convolution, Dense
from onnxprune.types import Array, FloatArray, IntArray

CARRIERS = frozenset({"Add", "Sub", "Identity", "Dropout", "AveragePool", "GlobalAveragePool"})
"""Operators that commute with mixing the channels of all their inputs."""

DAMPING = 1e-3


@dataclass(frozen=True, eq=False)
class Place:
    """Tensors that share one channel axis and are joined by linear operators only, with who writes and reads them."""

    tensors: frozenset[str]
    writers: tuple[Reader, ...]
    readers: tuple[Reader, ...]
    kept: IntArray


@dataclass(frozen=True, eq=False)
class Mixture:
    """P (kept, channels) and R (channels, kept) of one place."""

    project: FloatArray
    restore: FloatArray

    def apply(self, array: Array) -> Array:
        """Return the mixed tensor; its channels stand on axis 1."""
        rows = array.reshape(*array.shape[:2], -1)  # a product for each sample needs no axes in another order
        mixed = self.project.astype(array.dtype) @ rows
        return mixed.reshape(array.shape[0], -1, *array.shape[2:])


def find_places(
    graph: onnx.GraphProto,
    readers: Sequence[Reader],
    consumers: Consumers,
    positions: Mapping[str, Sequence[IntArray | None]],
) -> list[Place]:
    """Return the places of a pruned graph where mixtures of channels may stay instead of channels."""
    makers = {name: node for node in graph.node for name in node.output if name}
    writing = {reader.y: reader for reader in readers if _is_whole(reader)}
    reading: dict[str, list[Reader]] = {}
    for reader in readers:
        reading.setdefault(reader.x, []).append(reader)
    places, seen = [], set[str]()
    for y in writing:
        if y not in seen and _kept(y, positions) is not None:
            place = _grow(y, makers, writing, reading, consumers, positions)
            seen |= place[0]
            if place[1] is not None:
                places.append(place[1])
    return places


def _grow(
    start: str,
    makers: Mapping[str, onnx.NodeProto],
    writing: Mapping[str, Reader],
    reading: Mapping[str, list[Reader]],
    consumers: Consumers,
    positions: Mapping[str, Sequence[IntArray | None]],
) -> tuple[set[str], Place | None]:
    """Follow linear operators from one tensor; None if something else writes or reads what is found."""
    kept, tensors, queue = _kept(start, positions), {start}, [start]
    writers: dict[str, Reader] = {}
    readers: list[Reader] = []
    sound = kept is not None
    while queue:
        name = queue.pop()
        same = _kept(name, positions)
        sound = sound and same is not None and kept is not None and np.array_equal(same, kept)
        neighbours: list[str] = []
        if name in writing:
            writers[name] = writing[name]
        elif name in makers and _carries(makers[name]):
            neighbours += [n for n in makers[name].input if n]
        else:
            sound = False
        own = {id(reader.node): reader for reader in reading.get(name, ())}
        sound = sound and not consumers.is_output(name)
        for node in consumers.all(name):
            if id(node) in own and _is_whole(own[id(node)]) and _reads_channels(own[id(node)]):
                readers.append(own[id(node)])
            elif _carries(node):
                neighbours += [*node.output, *(n for n in node.input if n)]
            else:
                sound = False
        fresh = [n for n in neighbours if n not in tensors]
        tensors.update(fresh)
        queue += fresh
    if not sound or kept is None or not readers:
        return tensors, None
    return tensors, Place(frozenset(tensors), tuple(writers.values()), tuple(readers), kept)


def _kept(name: str, positions: Mapping[str, Sequence[IntArray | None]]) -> IntArray | None:
    """Return the kept positions if exactly axis 1 of the tensor loses some."""
    axes = positions.get(name, ())
    cut = [axis for axis, kept in enumerate(axes) if kept is not None]
    return axes[1] if cut == [1] else None


def _carries(node: onnx.NodeProto) -> bool:
    return node.op_type in CARRIERS and node.domain in ("", "ai.onnx")


def _is_whole(reader: Reader) -> bool:
    """Tell whether a reader mixes all its channels, its bias included."""
    layout = reader.layout
    return isinstance(layout, Dense) or (isinstance(layout, Convolution) and layout.groups == 1)


def _reads_channels(reader: Reader) -> bool:
    layout = reader.layout
    return isinstance(layout, Convolution) or (isinstance(layout, Dense) and layout.input_axis == 1)


def best_mixture(place: Place, weights: Sequence[Array], covariances: Sequence[FloatArray]) -> Mixture:
    """Return P and R of a place.

    Args:
        weights: for each reader (outs, taps, channels) of the original.
        covariances: for each reader, of the tensor that it reads.
    """
    channels = covariances[0].shape[0]
    metric, spread = np.zeros((channels, channels)), np.zeros((channels, channels))
    for weight, covariance in zip(weights, covariances, strict=True):
        seen = np.einsum("otc,otd->cd", weight, weight)
        power = float(np.einsum("cd,dc->", seen, covariance))
        if power > 0:
            metric += seen / power
            spread += covariance / max(float(np.trace(covariance)), 1e-30)
    metric += DAMPING * max(float(np.trace(metric)) / channels, 1e-30) * np.eye(channels)
    values, vectors = np.linalg.eigh(metric)
    root = (vectors * np.sqrt(values)) @ vectors.T
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    _, directions = np.linalg.eigh(root @ spread @ root)
    chosen = directions[:, ::-1][:, : len(place.kept)]
    project, restore = chosen.T @ root, inverse @ chosen
    scale = 1.0 / np.sqrt(np.maximum(np.einsum("kc,cd,kd->k", project, spread, project), 1e-30))
    size = np.sqrt(np.trace(spread) / channels)
    return Mixture(project * (scale * size)[:, None], restore / (scale * size)[None, :])
