"""Which axis of which tensor a `keep` means, and which of its positions stay."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.boundary import Boundary
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.trace import Shape, trace
from onnxprune.graph.view import View
from onnxprune.methods.trimming.axis_labels import AxisLabels, read_labels, spread
from onnxprune.methods.trimming.spec import positions
from onnxprune.types import BoolArray

TOKENS = "tokens"


@dataclass(frozen=True, eq=False)
class AxisCut:
    """One axis that loses positions. kept: (positions,) True stays."""

    tensor: str
    axis: int
    kept: BoolArray
    labels: AxisLabels | None = None


def find_cuts(
    model: Model,
    wanted: Mapping[str, Sequence[str | int]],
    tokens: BoolArray | None,
    labels: Sequence[str | int] | None,
    labels_key: str | None,
    shapes: dict[str, Shape],
) -> list[AxisCut]:
    """Return what every `OUTPUT[:AXIS]` and its positions mean.

    Raises:
        UsageError: a tensor, axis, position or label that does not exist; several axes that could be meant.
        NothingToPruneError: no axis of the tensor can lose positions.
    """
    view = View(model)
    traced = trace(view, shapes).shapes
    cuts = []
    for target, entries in wanted.items():
        name, axis = find_axis(model, traced, target, shapes)
        size, what = traced[name][axis], f"keep {target}"
        if tuple(entries) == (TOKENS,):
            if tokens is None or len(tokens) != size:
                has = "no tokens are given" if tokens is None else f"there are {len(tokens)} tokens"
                raise UsageError(f"{what}: axis {axis} of '{name}' has {size} positions, and {has}.")
            cuts.append(AxisCut(name, axis, tokens))
            continue
        named = _labels(model.proto, size, labels, labels_key)
        kept = positions(entries, size, named.names if named else None, what)
        cuts.append(AxisCut(name, axis, kept, named))
    return cuts


def _labels(model: onnx.ModelProto, size: int, given: Sequence[str | int] | None, key: str | None) -> AxisLabels | None:
    if given is None:
        return read_labels(model, size, key)
    if len(given) > size:
        raise UsageError(f"labels: {len(given)} are given for an axis of {size} positions.")
    found = spread([str(label) for label in given], size)
    listed = read_labels(model, size, key)
    return AxisLabels(found.names, found.first, found.listed, listed.key if listed else "")


def find_axis(model: Model, traced: dict[str, Shape], target: str, shapes: dict[str, Shape]) -> tuple[str, int]:
    """Return tensor and axis of `NAME` or `NAME:AXIS`; without an axis the only one that can lose positions.

    Raises:
        UsageError: there is no such tensor or axis, or several axes could be meant.
        NothingToPruneError: no axis can lose positions.
    """
    name, axis = target, None
    if target not in traced and ":" in target:
        name, _, text = target.rpartition(":")
        if not text.lstrip("-").isdigit():
            raise UsageError(f"'{target}' is not like NAME:AXIS; the axis is a whole number.")
        axis = int(text)
    if name not in traced:
        names = list(traced)
        close = difflib.get_close_matches(name, names, n=1)
        outputs = ", ".join(output.name for output in model.proto.graph.output)
        hint = f"did you mean '{close[0]}'?" if close else f"its outputs are {outputs}."
        raise UsageError(f"the model has no tensor '{name}' of known shape; {hint}")
    rank = len(traced[name])
    if axis is not None:
        if not -rank <= axis < rank:
            raise UsageError(f"'{name}' has {rank} axes; there is no axis {axis}.")
        return name, axis % rank
    free = _free_axes(model, name, traced[name], shapes)
    if len(free) != 1:
        said = f"'{name}' has shape {list(traced[name])}, of which"
        if not free:
            raise NothingToPruneError(f"{said} no axis can lose positions; {name}:AXIS says why of one.")
        raise UsageError(f"{said} axes {', '.join(map(str, free))} can lose positions; say which: {name}:AXIS.")
    return name, free[0]


def _free_axes(model: Model, name: str, shape: Shape, shapes: dict[str, Shape]) -> list[int]:
    cut = {(name, axis): np.ones(size, dtype=bool) for axis, size in enumerate(shape) if size > 1}
    channels: Channels = analyse(model, shapes, boundary=Boundary(cut))
    pinned = channels.solution.pinned[channels.solution.label]
    return [axis for _, axis in cut if not pinned[channels.state.axes[name][axis]].any()]
