"""What each group costs: the error of the outputs when that group alone is cut and its readers make up for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.allocate.measuring import effort
from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import ChannelGroup, keep_all
from onnxprune.errors import UsageError
from onnxprune.graph.count import macs
from onnxprune.graph.model import Source, load
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.choice import Clock, prepare
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.prune import require_weights
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.score.probe import Probe
from onnxprune.score.probing import answers
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.suspicion import suspicions
from onnxprune.types import IntArray

RATIOS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class GroupCost:
    """One group: the error at each ratio, and the share of all MACs that goes with half of its channels.

    errors: mean squared difference of the outputs relative to their variance.
    """

    name: str
    kind: str
    size: int
    errors: tuple[float, ...]
    saves: float


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Costs of all groups, the cheapest to cut in half first.

    samples: on which they were measured.
    """

    channels: Channels
    ratios: tuple[float, ...]
    groups: tuple[GroupCost, ...]
    samples: int
    warnings: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, str | int | float]]:
        """Return one row a group, as JSON data."""
        return [
            {
                "group": cost.name,
                "kind": cost.kind,
                "size": cost.size,
                "macs_saved_at_half": round(cost.saves, 5),
                **{f"error_at_{r:g}": float(f"{e:.5g}") for r, e in zip(self.ratios, cost.errors, strict=True)},
            }
            for cost in self.groups
        ]


@dataclass(frozen=True, eq=False)
class _Cuts:
    """What cutting some ratios of a group costs, in the order in which its channels go."""

    group: ChannelGroup
    order: IntArray
    ratios: tuple[float, ...]

    def ask(self, probe: Probe) -> tuple[float, ...]:
        """Return the error at each ratio."""
        counts = [min(self.group.size - 1, round(ratio * self.group.size)) for ratio in self.ratios]
        return tuple(probe.alone(self.group, self.order[:count]) for count in counts)


@on_one_thread
def sensitivity(
    source: Source,
    data: DataSource,
    options: PruneOptions | None = None,
    *,
    ratios: Sequence[float] = RATIOS,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Sensitivity:
    """Return what cutting each group alone does to the outputs.

    Args:
        data: inputs of the kind that the model is used on, without labels.
        options: score, skip, only, exact_only, heads, head_dim and input_shapes are looked at.
        ratios: shares of the channels removed.

    Raises:
        DataError: the data do not fit.
        NothingToPruneError: there is no group that may be cut.
        UsageError: a ratio outside (0, 1).
    """
    bad = [ratio for ratio in ratios if not 0 < ratio < 1]
    if bad:
        raise UsageError(f"ratio {bad[0]:g} is outside (0, 1).")
    options = options or PruneOptions()
    runtime = replace(runtime or Runtime(), memory=options.memory)
    model = load(source)
    samples = calibration(model, data)
    channels = analyse(model, dict(options.input_shapes), options.heads, options.head_dim, seen=samples.sizes)
    require_weights(channels)
    seen = look(channels.view, samples, runtime)
    activity = seen.activity(runtime)
    if options.stats is not None:
        activity = KnownSums.of(options.stats, model).tell(activity, seen)
    progress("collecting statistics")
    request, _, warnings = prepare(channels, options, Clock(), activity)
    work = effort(channels, samples, request.groups, ratios)
    probe = Probe(activity, request.groups, work.samples)
    total = max(1, sum(macs(channels.view, channels.trace.shapes).values()))
    costs = []
    orders = [np.argsort(request.scores[group.name], kind="stable") for group in request.groups]
    asked = [_Cuts(group, order, tuple(ratios)) for group, order in zip(request.groups, orders, strict=True)]
    found = answers(probe, asked)
    for number, (group, order) in enumerate(zip(request.groups, orders, strict=True), 1):
        progress(f"group {number} of {len(request.groups)}: {group.name}")
        errors = next(found)
        half = keep_all((group,))
        half[group.name][order[: group.size // 2]] = False
        left = sum(macs(channels.view, channels.shapes(half)).values())
        costs.append(GroupCost(group.name, group.kind, group.size, errors, 1 - left / total))
    middle = len(ratios) // 2
    costs.sort(key=lambda cost: cost.errors[middle])
    doubts = suspicions(model, samples, runtime.threads, runtime.provider)
    notes = (*warnings, *samples.warnings, *doubts, *([work.note] if work.note else []))
    return Sensitivity(channels, tuple(ratios), tuple(costs), work.samples, notes)
