"""What models are made of, for reports: parameters, bytes, and multiply-adds of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxprune.report import Side

if TYPE_CHECKING:
    from onnxprune.channels.analyse import Channels
    from onnxprune.channels.groups import Keep
    from onnxprune.graph.model import Model
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View


def describe(model: Model, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Side:
    """Return the size of a model."""
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View

    view = View(model)
    return describe_view(view, trace(view, dict(input_shapes or {})))


def describe_view(view: View, traced: Trace) -> Side:
    """Return the size of a model that has been traced already."""
    from onnxprune.graph.count import macs, params
    from onnxprune.statistics.batch import batch_of

    model = view.model
    return Side(
        path=str(model.path) if model.path else None,
        sha256=model.sha256,
        bytes=model.size_bytes,
        params=sum(params(view, traced.shapes).values()),
        macs=round(sum(macs(view, traced.shapes).values()) / batch_of(view, traced)),
    )


def describe_pruned(channels: Channels, keep: Keep) -> tuple[Side, Side]:
    """Return the size of a model before and, as far as it is known without the file, after pruning."""
    from onnxprune.graph.count import macs, params
    from onnxprune.statistics.batch import batch_of

    before = describe_view(channels.view, channels.trace)
    shapes = channels.shapes(keep)
    amount = sum(macs(channels.view, shapes).values()) / batch_of(channels.view, channels.trace)
    return before, Side(path=None, params=sum(params(channels.view, shapes).values()), macs=round(amount))


def same_work(before: Side | None) -> Side | None:
    """Return the size of the result as far as it is known: it does the same work on as many parameters."""
    return Side(path=None, params=before.params, macs=before.macs) if before else None
