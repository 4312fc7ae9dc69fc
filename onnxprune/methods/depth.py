"""What follows for a prune from branches that were dropped first: data, border, plan, what is left of a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.plan import Plan
from onnxprune.evidence.border import Border
from onnxprune.graph.drop import Shortened
from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import View
from onnxprune.methods.resize import border_of
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.split import changed


@dataclass(frozen=True, eq=False)
class Whole:
    """A model nothing of which is removed, as `onnxprune.allocate.measures.Shaped` wants it."""

    view: View
    trace: Trace

    def shapes(self, keep: Keep) -> dict[str, Shape]:
        """Return the shapes of its tensors."""
        return dict(self.trace.shapes)


def sizes_left(short: Shortened | None, input_shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the sizes of the inputs that are left."""
    gone = short.inputs if short is not None else ()
    return {name: shape for name, shape in input_shapes.items() if name not in gone}


def data_left(short: Shortened | None, data: Data | None) -> Data | None:
    """Return the data as what is left takes them."""
    if short is None or data is None or not short.inputs:
        return data
    return changed(data, Border(gone=frozenset(short.inputs)).narrowed, input_specs(short.model.proto))


def border_left(short: Shortened | None, channels: Channels, keep: Keep) -> Border:
    """Return how inputs and outputs follow from those of the whole model."""
    border = border_of(channels, keep)
    if short is None or not (short.inputs or short.outputs):
        return border
    outputs = frozenset(channels.view.outputs) if short.outputs else None
    return replace(border, gone=frozenset(short.inputs), outputs=outputs)


def plan_of(short: Shortened | None, channels: Channels, keep: Keep) -> Plan:
    """Return the plan for the whole model."""
    whole = channels.view.model if short is None else short.whole
    plan = replace(channels.plan(keep), structure=whole.structure)
    return plan if short is None else replace(plan, source_sha256=whole.sha256, dropped=short.names)


def whole_of(short: Shortened | None) -> Whole | None:
    """Return what shares are of; None where nothing was dropped."""
    return Whole(short.view, short.trace) if short is not None else None


def notes_of(short: Shortened | None) -> list[str]:
    """Say what went with the branches and concerns those who call the model."""
    if short is None:
        return []
    return [
        f"{kind} {', '.join(repr(name) for name in names)} went with the branches; callers must follow"
        for kind, names in (("input", short.inputs), ("output", short.outputs))
        if names
    ]
