"""Values of what stands in the place of a dropped branch, by least squares, and its way into the layer before it.

For x the skip and f the branch, on rows of the original's activations: bias b = mean f; scale (s - 1) and b by a line
every channel; linear (W - 1) and b by ridge regression of f on x, its strength chosen on rows that were held out.
Source: Wang and Wu, CVPR 2023, Practical Network Acceleration with Tiny Sets: linear adaptors recover dropped blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnxprune.compensate.readers import Consumers, Reader, find_readers
from onnxprune.compensate.ridge import STRENGTHS, Moments, System
from onnxprune.compensate.weights import Weights
from onnxprune.graph.model import Model
from onnxprune.graph.substitute import Substitute
from onnxprune.types import Array, FloatArray

ROWS = 16
"""So many rows for each channel are enough, but not fewer than `FEWEST`."""
FEWEST = 4096


@dataclass(eq=False)
class Collected:
    """Second moments of a skip (features) and its branch (targets), of rows to fit to and rows to judge on."""

    channels: int
    batches: int
    train: Moments = field(init=False)
    held: Moments = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        self.train, self.held = (Moments.zeros(1, self.channels, self.channels) for _ in range(2))

    def add(self, skip: Array, branch: Array, axis: int) -> None:
        """Add the rows of one batch; every fourth batch is held out."""
        x, f = (np.moveaxis(a, axis, -1).reshape(-1, self.channels).astype(np.float32) for a in (skip, branch))
        most = max(FEWEST, ROWS * self.channels) // max(self.batches, 1) + 1
        if len(x) > most:
            picked = np.linspace(0, len(x) - 1, most).astype(int)
            x, f = x[picked], f[picked]
        rows = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
        (self.held if self._count % 4 == 3 else self.train).add(rows[None], f[None])
        self._count += 1

    def fitted(self, kind: str) -> tuple[FloatArray, float]:
        """Return (1, channels, channels + 1) weights of the branch on its skip, and the error that they leave.

        The error is on held-out rows, a share of what the branch gives.
        """
        train, held = self.train, self.held if self.held.count else self.train
        nothing = np.zeros((1, self.channels, self.channels + 1))
        scale = max(held.error(nothing), 1e-30)
        if kind == "linear":
            system = System(train, nothing)
            found = [system.ridge(strength).solve(train.cross) for strength in STRENGTHS]
        else:
            found = [_lines(train, slopes=kind == "scale")]
        best = min(found, key=held.error)
        return best, held.error(best) / scale


def _lines(moments: Moments, *, slopes: bool) -> FloatArray:
    """Return weights that are diagonal: a line for every channel, or its mean."""
    count = max(moments.count, 1.0)
    gram, cross, mean = moments.gram[0] / count, moments.cross[0] / count, moments.gram[0, -1, :-1] / count
    target = cross[-1]
    variance = np.diag(gram)[:-1] - mean**2
    slope = np.where(variance > 1e-12, (np.diag(cross[:-1]) - mean * target) / np.maximum(variance, 1e-12), 0.0)
    slope = slope if slopes else np.zeros_like(slope)
    weights = np.zeros((1, len(mean), len(mean) + 1))
    weights[0, np.arange(len(mean)), np.arange(len(mean))] = slope
    weights[0, :, -1] = target - slope * mean
    return weights


def with_values(substitute: Substitute, weights: FloatArray) -> Substitute:
    """Return a substitute that gives the skip and on top of it what weights of `Collected.fitted` say."""
    matrix, bias = weights[0, :, :-1], weights[0, :, -1]
    added = matrix if substitute.kind == "linear" else np.diag(matrix)
    return replace(substitute, matrix=substitute.idled.matrix + added, bias=bias)


def gather(
    values: Iterable[Mapping[str, tuple[Array, Array]]], axes: Mapping[str, int], batches: int
) -> dict[str, Collected]:
    """Return the moments of branches.

    Args:
        values: of every batch, name of a branch -> its skip and what it gives. axes: name -> axis of the channels.
    """
    found: dict[str, Collected] = {}
    for batch in values:
        for name, (skip, branch) in batch.items():
            if not (np.isfinite(skip).all() and np.isfinite(branch).all()):
                continue
            found.setdefault(name, Collected(skip.shape[axes[name]], batches)).add(
                skip, np.broadcast_to(branch, skip.shape), axes[name]
            )
    return found


def merged(model: Model, totals: Sequence[str]) -> Model:
    """Return the model without the substitutes that the linear layer before them can take over, exactly.

    A layer that only the substitute reads takes it whole; one whose sum with something else only it reads, a bias.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    weights = Weights(replace(model, proto=proto, file_bytes=None))
    changed = False
    for total in totals:
        changed |= _taken_over(weights, total)
    return weights.model if changed else model


def _taken_over(weights: Weights, total: str) -> bool:
    graph = weights.model.proto.graph
    readers = find_readers(weights)
    makers = {name: node for node in graph.node for name in node.output}
    end, consumers = makers.get(total), Consumers(graph)
    if end is None:
        return False
    own = next((reader for reader in readers if reader.y == total), None)
    skip = own.x if own is not None and end.op_type in ("Conv", "Add") else ""
    bias = weights.value(end.input[1]) if end.op_type == "Add" and own is None else None
    skip = skip or (end.input[0] if bias is not None else "")
    if not skip or len(consumers.all(skip)) != 1 or consumers.is_output(skip):
        return False
    before = next((r for r in readers if r.y == skip), None)
    channels = len(before.effective.reshape(-1, before.effective.shape[-1])) if before is not None else 0
    if own is not None:
        fits = before is not None and _takes(before, own)
        if before is None or not fits:
            return False
        _compose(weights, before, own)
    else:
        before = before or next((r for r in readers if r.total == skip), None)
        if bias is None or before is None or before.sink is None:
            return False
        effective = before.effective
        channels = effective.shape[0] * effective.shape[1]
        if bias.size != channels:
            return False
        effective[:, :, -1] += bias.reshape(effective.shape[:2])
        before.store(weights, effective)
    _pass_on(graph, end, skip, total)
    return True


def _takes(before: Reader, own: Reader) -> bool:
    """Tell whether a layer can be followed by a map of its channels: one group, or a factor for each channel."""
    one, two = before.effective, own.effective
    diagonal = two.shape[0] > 1 and two.shape[1:] == (1, 2)
    return (
        before.sink is not None
        and (diagonal or (one.shape[0] == two.shape[0] == 1))
        and bool(np.abs(before.scale).min() > 0)
    )


def _compose(weights: Weights, before: Reader, own: Reader) -> None:
    one, two = before.effective, own.effective
    if two.shape[0] > 1:
        factor, shift = (two[:, 0, place].reshape(one.shape[:2]) for place in (0, 1))
        new = one * factor[:, :, None]
        new[:, :, -1] += shift
    else:
        new = (two[0, :, :-1] @ one[0])[None]
        new[0, :, -1] += two[0, :, -1]
    before.store(weights, new)


def _pass_on(graph: onnx.GraphProto, end: onnx.NodeProto, skip: str, total: str) -> None:
    """Let an Identity make the total again, and what only the substitute read go."""
    inner = [node for node in graph.node if node.op_type in ("MatMul", "Mul") and node.output[0] == f"{total}_inner"]
    used = {name for node in (end, *inner) for name in node.input[1:]}
    end.CopyFrom(onnx.helper.make_node("Identity", [skip], [total], name=end.name))
    for node in inner:
        graph.node.remove(node)
    still = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name in used - still]:
        graph.initializer.remove(tensor)
    for value in [v for v in graph.input if v.name in used - still]:
        graph.input.remove(value)
