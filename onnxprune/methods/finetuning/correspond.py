"""Which tensors of a compressed model are which of the original's, found by their names, and positions by their values.

A tensor that lost positions along one axis has kept some of the original's in their order. Which ones is read off the
data: the assignment in order whose correlations sum up to most (dynamic programming), whoever cut the model, and
whether or not weights were refitted since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from onnxprune.compensate.distil import before_last
from onnxprune.compensate.slopes import Cut
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.collect import observed
from onnxprune.statistics.feeds import Feed, can_stack, fixed_batch, input_specs
from onnxprune.types import Array, IntArray

ALIKE = 0.5
"""Least correlation, on the average of the positions, of tensors that correspond."""
MOST_INNER = 16
LOOKED_AT, MOST_VALUES = 1 << 16, 1 << 23
"""Values of each position that correlations are taken of, and of all positions together, at most."""
MATCHED_BYTES = 1 << 28
"""Tensors of both models are looked at on so many samples that they take no more."""
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is compared: outputs (or what is before a last Softmax), and tensors inside, with what was cut of each.

    ends: output -> the tensor that stands for it. lost: tensors that have another shape and no counterpart.
    """

    outputs: dict[str, Cut]
    inner: dict[str, Cut]
    ends: dict[str, str]
    lost: tuple[str, ...] = ()


def correspondence(original: Model, compressed: Model, feeds: Sequence[Feed]) -> Pairs:
    """Return the tensors of two models that correspond.

    Args:
        feeds: samples, all of one shape.

    Raises:
        UsageError: the models take or give other things; names the tensor.
    """
    _check_inputs(original, compressed)
    ends = _ends(original, compressed)
    inner = [name for name in _inner(original, compressed) if name not in ends.values()]
    wanted = list(dict.fromkeys([*ends.values(), *inner]))
    feeds = _few(original, wanted, feeds)
    old, new = (_values(model, wanted, feeds) for model in (original, compressed))
    cuts = {name: _cut(old[name], new[name]) for name in wanted}
    for output, name in ends.items():
        if cuts[name] is None:
            shapes = " and ".join(str(list(values[name].shape[1:])) for values in (old, new))
            raise UsageError(
                f"output '{output}' of the compressed model does not correspond to the original's: a sample has shape "
                f"{shapes}, or it gives something else; give the model that it was made from."
            )
    found = {name: cut for name, cut in cuts.items() if cut is not None}
    return Pairs(
        {name: found[name] for name in dict.fromkeys(ends.values())},
        {name: found[name] for name in inner if name in found},
        ends,
        tuple(name for name in inner if name not in found),
    )


def _check_inputs(original: Model, compressed: Model) -> None:
    known = {spec.name: spec for spec in input_specs(original.proto)}
    for spec in input_specs(compressed.proto):
        other = known.get(spec.name)
        if other is None:
            raise UsageError(f"the compressed model does not correspond: the original has no input '{spec.name}'.")
        same_rank = spec.shape is None or other.shape is None or len(spec.shape) == len(other.shape)
        sizes = zip(spec.shape or (), other.shape or (), strict=False)
        if spec.dtype != other.dtype or not same_rank or any(a and b and a != b for a, b in sizes):
            raise UsageError(
                f"the compressed model does not correspond: its input is {spec}, the original's {other}; inputs that "
                "were trimmed cannot be finetuned."
            )


def _ends(original: Model, compressed: Model) -> dict[str, str]:
    """Return for outputs the tensor that is compared: what a last Softmax reads, where that is the same in both."""
    graphs = original.proto.graph, compressed.proto.graph
    given = {value.name for value in graphs[0].output}
    ends = {}
    for value in graphs[1].output:
        if value.name not in given:
            raise UsageError(f"the compressed model does not correspond: the original has no output '{value.name}'.")
        old, new = (before_last(graph, value.name) for graph in graphs)
        ends[value.name] = old if old == new else value.name
    return ends


def _inner(original: Model, compressed: Model) -> list[str]:
    """Return sums of branches that both graphs have by name; outputs of layers where there are none."""
    kinds = {name: node for node in original.proto.graph.node for name in node.output if name}
    graph = compressed.proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    both = [node for node in graph.node if node.output and _same(node, kinds.get(node.output[0]))]
    sums = [n for n in both if n.op_type == "Add" and not stored & set(n.input) and len(set(n.input)) == 2]
    made = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    sums = [n for n in sums if set(n.input) <= made]
    chosen = sums or [n for n in both if n.op_type in LAYERS]
    step = max(1, -(-len(chosen) // MOST_INNER))
    return [node.output[0] for node in chosen[step - 1 :: step]]


def _same(node: onnx.NodeProto, other: onnx.NodeProto | None) -> bool:
    return other is not None and (node.op_type, node.domain) == (other.op_type, other.domain)


def _few(model: Model, names: Sequence[str], feeds: Sequence[Feed]) -> Sequence[Feed]:
    """Return as many samples as can be looked at, whole feeds where they cannot be cut."""
    specs = input_specs(model.proto)
    reads = {spec.name for spec in specs}
    count = len(next(iter(feeds[0].values())))
    if not can_stack(specs) or fixed_batch(specs) or count == 1:
        one = feeds[0]
        count = 1
    else:
        one = {name: array[:1] for name, array in feeds[0].items()}
    each = sum(array.nbytes for array in _values(model, names, [one]).values())
    most = max(2, MATCHED_BYTES // max(1, 2 * each))
    if count == 1:
        return feeds[:most]
    cut = []
    for feed in feeds:
        here = {name: array[:most] if name in reads else array for name, array in feed.items()}
        cut.append(here)
        most -= len(next(iter(here.values())))
        if most <= 0:
            break
    return cut


def _values(model: Model, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Array]:
    session = open_session(observed(model, names), threads=1, folder=model.folder)
    reads = {spec.name for spec in input_specs(model.proto)}
    found = [session.values(names, {n: a for n, a in feed.items() if n in reads}) for feed in feeds]
    pairs = ((name, parts) for name, parts in zip(names, zip(*found, strict=True), strict=True))
    return {name: np.concatenate(parts) if parts[0].ndim else parts[0] for name, parts in pairs}


def _cut(old: Array, new: Array) -> Cut | None:
    """Return what takes a tensor of the original to that of the compressed model; None: they do not correspond."""
    if old.shape == new.shape:
        return _whole
    axes = [axis for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=False)) if a != b]
    if old.ndim != new.ndim or len(axes) != 1 or old.shape[axes[0]] < new.shape[axes[0]] or old.dtype.kind != "f":
        return None
    (axis,) = axes
    kept, likeness = matched(old, new, axis)
    return partial(_taken, axis=axis, kept=kept) if likeness >= ALIKE else None


def matched(old: Array, new: Array, axis: int) -> tuple[IntArray, float]:
    """Return which positions of an axis are left, in their order, and the mean correlation with what is there now."""
    rows = [np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (old, new)]
    step = max(1, -(-rows[0].shape[1] // max(1, min(LOOKED_AT, MOST_VALUES // len(rows[0])))))
    a, b = (_standard(values[:, ::step].astype(np.float64)) for values in rows)
    gains = a @ b.T
    # best[j][i]: the first j + 1 positions that are left are among the first i + 1 of the original
    best = np.maximum.accumulate(gains[:, 0])
    table = [best]
    for column in range(1, gains.shape[1]):
        before = np.concatenate([[-np.inf], table[-1][:-1]])
        table.append(np.maximum.accumulate(before + gains[:, column]))
    kept, last = [], gains.shape[0]
    for column in reversed(range(gains.shape[1])):
        last = int(np.argmax(table[column][:last]))  # the first place where the best sum is reached
        kept.append(last)
    found = np.array(kept[::-1])
    return found, float(gains[found, np.arange(len(found))].mean())


def _standard(values: Array) -> Array:
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / (np.sqrt(np.square(centred).sum(axis=1, keepdims=True)) + 1e-12))


def _whole(array: Array) -> Array:
    return array


def _taken(array: Array, axis: int, kept: IntArray) -> Array:
    return np.take(array, kept, axis=axis)
