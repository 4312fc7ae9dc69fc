"""Carry out a saved plan on the model that it was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxprune.channels.analyse import analyse
from onnxprune.channels.plan import Plan
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import UsageError
from onnxprune.graph.model import Source, load
from onnxprune.methods.calibration import DataSource, Runtime, calibration
from onnxprune.methods.refit import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.synthetic import WEAKER, synthetic
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.turned import turned_if_few


@on_one_thread
def apply(
    source: Source,
    plan: Plan,
    *,
    force: bool = False,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    heads: bool | None = None,
    head_dim: bool | None = None,
    data: DataSource | None = None,
    compensate: str | None = None,
    steps: int | None = None,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove what a plan says.

    Args:
        source: the model that the plan was made for; it is not changed.
        plan: see `Plan.from_json`.
        force: apply it to another model as well, as long as its tensors fit.
        input_shapes: graph input -> full shape, as it was when the plan was made.
        heads, head_dim: as they were when the plan was made.
        data, compensate, steps, runtime, progress: see `onnxprune.methods.prune.prune`. A refit without data looks at
            made-up inputs.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
        UsageError: the plan was made for another model, or does not fit.
    """
    model = load(source)
    if model.sha256 != plan.source_sha256 and not force:
        raise UsageError(
            f"the plan was made for another file (sha256 {plan.source_sha256[:12]}.., this one has "
            f"{model.sha256[:12]}..); make a plan for this one, or force it where the tensors are the same."
        )
    samples = turned_if_few(calibration(model, data)) if data is not None else None
    channels = analyse(model, dict(input_shapes or {}), heads, head_dim)
    keep = channels.keep(plan)
    cut = rewrite(channels, keep)
    result = PruneResult(cut, plan, channels, keep, uncompensated=cut)
    if samples is None and compensate not in (None, "none"):
        samples = synthetic(channels, input_shapes or {}, 0, runtime or Runtime())
        result = replace(result, warnings=(WEAKER,))
    progress("refitting what stays")
    return replace(refit(result, samples, compensate, runtime or Runtime(), steps), samples=samples)
