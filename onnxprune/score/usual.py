"""The score that is taken where none is asked for: the best one that the data, the network and the time allow."""

from __future__ import annotations

from importlib.util import find_spec

from onnxprune.errors import OnnxpruneError
from onnxprune.graph.cost import GRADIENT, cost_of
from onnxprune.graph.mapped import is_vast
from onnxprune.score.activity import Activity
from onnxprune.score.curvature import BATCH, PROJECTIONS, SAMPLES, Curvature
from onnxprune.score.parted import Parted
from onnxprune.score.spelled import DEFAULT, DEFAULT_WITH_DATA

LIKELY = "curvature"
"""What is taken where derivatives are at hand."""
MOST_SECONDS = 6.0
"""Predicted CPU seconds that derivatives may take; a prune of a small network takes about 40."""
COPIES = 4
"""Of the model: the graph of derivatives, on its way and in its session."""


def usual_score(activity: Activity | None) -> tuple[str, float]:
    """Return the name of the score, and the predicted CPU seconds of what it needs that others do not."""
    if activity is None:
        return DEFAULT, 0.0
    each = _seconds_each(activity)
    count = min(SAMPLES, activity.data.samples)
    if not 0 < each * count <= MOST_SECONDS:  # derivatives at fewer samples chose worse than none
        return DEFAULT_WITH_DATA, 0.0
    try:
        activity.curvature = activity.curvature or Curvature.of(activity, count)
    except OnnxpruneError:  # an operator has no derivative, or a run of them fails
        return DEFAULT_WITH_DATA, 0.0
    return LIKELY, each * count


def _seconds_each(activity: Activity) -> float:
    """Return the predicted seconds of the derivatives for a sample; 0 where there can be none."""
    whole = activity.data.is_here and activity.given is None and not isinstance(activity, Parted)
    whole = whole and not is_vast(activity.view.model.proto)  # derivatives would hold all its weights
    fits = COPIES * activity.view.model.size_bytes <= activity.allowed
    if not (whole and fits) or find_spec("onnx_ad") is None:
        return 0.0
    feed = next(iter(activity.data.batches(BATCH)))
    forward = cost_of(activity.view.model, {name: array.shape for name, array in feed.items()}).seconds
    return PROJECTIONS * (1 + GRADIENT) * forward / max(1, len(next(iter(feed.values()))))
