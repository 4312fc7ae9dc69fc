"""A model without its dropped branches, refitted in closed form, as a candidate for what takes their place."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.graph.drop import Shortened
from onnxprune.graph.model import Model
from onnxprune.graph.substitute import Substitute
from onnxprune.methods.depth import border_left, plan_of
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.substitutes import Trial
from onnxprune.statistics.data import Data

Thin = Callable[[tuple[Substitute, ...]], Keep]
"""Substitutes -> the channels that stay where a target has to be met with them."""


def trial_of(channels: Channels, short: Shortened | None, runtime: Runtime, thin: Thin | None = None) -> Trial:
    """Return what refits a candidate.

    Args:
        channels: of what the dropped branches left.
        thin: None: all of them stay.
    """

    def trial(substitutes: tuple[Substitute, ...], data: Data) -> Model:
        keep = thin(substitutes) if thin is not None else {}
        model = rewrite(channels, keep) if keep else channels.model
        plan, border = plan_of(short, channels, keep), border_left(short, channels, keep)
        result = PruneResult(model, plan, channels, keep, border=border, short=short, substitutes=substitutes)
        return refit(result, data, "lstsq", runtime).model

    return trial
