"""Inputs and outputs that may shrink with the channels inside: which they are, and what became of them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.channels.boundary import Boundary
from onnxprune.channels.constants import kept_positions
from onnxprune.channels.groups import Keep
from onnxprune.errors import UsageError
from onnxprune.evidence.border import Border
from onnxprune.graph.model import Model
from onnxprune.graph.states import fed_back, named_states
from onnxprune.graph.view import View


def loose_border(model: Model, patterns: Sequence[str], states: Sequence[str]) -> Boundary | None:
    """Return the boundary whose inputs and outputs may shrink; None where nobody asks for it.

    Args:
        patterns: globs over names of inputs and outputs. The partner of a state that is fed back shrinks with it.
        states: pairs OUTPUT=INPUT besides those that are found by their names; both may shrink.

    Raises:
        UsageError: a pattern matches nothing, or a pair does not exist or fit.
    """
    if not patterns and not states:
        return None
    view = View(model)
    given = named_states(view, states)
    pairs = dict.fromkeys([*given, *fed_back(view)])
    names = [*view.inputs, *view.outputs]
    loose = {name for pair in given for name in pair}
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            close = difflib.get_close_matches(pattern, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}."
            raise UsageError(f"no input or output matches '{pattern}'; {hint}")
        loose |= found
    loose |= {name for pair in pairs if loose & set(pair) for name in pair}
    return Boundary(loose=frozenset(loose), states=tuple(pair for pair in pairs if pair[0] in loose))


def border_of(channels: Channels, keep: Keep) -> Border:
    """Return how inputs and outputs follow from the original's."""
    if not channels.state.boundary.loose:
        return Border()
    mask, axes = channels.mask(keep), channels.state.axes
    kept = {name: kept_positions(axes[name], mask) for name in channels.state.boundary.loose if name in axes}
    return Border(kept={name: found for name, found in kept.items() if any(p is not None for p in found)})


def shape_notes(channels: Channels, border: Border) -> list[str]:
    """Say which inputs and outputs changed their shape, for whoever calls the model."""
    shapes = channels.trace.shapes
    return [
        f"'{name}' has another shape now: {_sizes(shapes[name], border.kept[name])}; its callers must follow"
        for name in sorted(border.kept)
    ]


def _sizes(shape: tuple[int, ...], kept: Sequence[object]) -> str:
    parts = [
        f"axis {axis}: {size} -> {len(positions)}"  # type: ignore[arg-type]  # an array of positions
        for axis, (size, positions) in enumerate(zip(shape, kept, strict=True))
        if positions is not None
    ]
    return ", ".join(parts)


def with_shapes(model: Model, channels: Channels, border: Border) -> Model:
    """Return the model whose metadata list every changed shape, under `onnxprune.resized`."""
    if border.is_open:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    shapes = channels.trace.shapes
    entry = proto.metadata_props.add()
    entry.key = "onnxprune.resized"
    entry.value = "; ".join(f"{name} {_sizes(shapes[name], border.kept[name])}" for name in sorted(border.kept))
    return replace(model, proto=proto, file_bytes=None)
