"""What a prune gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.channels.plan import Plan
from onnxprune.compensate.compensate import Compensation
from onnxprune.evidence.border import Border
from onnxprune.graph.drop import Shortened
from onnxprune.graph.model import Model
from onnxprune.graph.substitute import Substitute
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View
from onnxprune.methods.latency_target import Latency
from onnxprune.methods.width_rule import Rounding
from onnxprune.report import Report
from onnxprune.statistics.data import Data


@dataclass(frozen=True, eq=False)
class PruneResult:
    """A pruned model and how it came about.

    model: the pruned model; the source itself where nothing was removed.
    plan: what was removed.
    channels: the analysis of the source, without the branches that were dropped.
    keep: the mask of every group that lost channels.
    reasons: group name -> why it was left alone.
    warnings: what was done otherwise than asked.
    seconds: stage -> time that it took.
    curves_seconds: predicted CPU seconds of the curves that were measured for a target.
    uncompensated: the pruned model before its layers were refitted; `model` itself where they were not.
    compensation: what the refit did, None where there was none.
    latency: measured on both models where that was the target.
    samples: inputs that the choice and the refit looked at, the user's or made up.
    report: what was found out about the result, where a job made it.
    border: how its inputs and outputs follow from the original's.
    short: the source without branches, and what it was; None where none were dropped.
    substitutes: what takes the place of dropped branches in a refit.
    rounding: which widths groups may keep.
    """

    model: Model
    plan: Plan
    channels: Channels
    keep: Keep
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    uncompensated: Model | None = None
    compensation: Compensation | None = None
    latency: Latency | None = None
    samples: Data | None = None
    report: Report | None = None
    border: Border = field(default_factory=Border)
    short: Shortened | None = None
    substitutes: tuple[Substitute, ...] = ()
    curves_seconds: float = 0.0
    rounding: Rounding | None = None

    @property
    def removes(self) -> bool:
        """Whether anything went."""
        return bool(self.keep) or self.short is not None

    @property
    def view(self) -> View:
        """The source, whole."""
        return self.short.view if self.short is not None else self.channels.view

    @property
    def trace(self) -> Trace:
        """The sizes of the source."""
        return self.short.trace if self.short is not None else self.channels.trace
