"""Carry out a saved plan on the model that it was made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxprune.channels.analyse import analyse
from onnxprune.channels.plan import Plan
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError
from onnxprune.graph.drop import shorten
from onnxprune.graph.model import Model, Source, load
from onnxprune.graph.structure import counts_of
from onnxprune.methods.apply_options import ApplyOptions
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.closed_refit import closed_refit
from onnxprune.methods.compensate_options import require_data
from onnxprune.methods.depth import border_left, notes_of, sizes_left, whole_of
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.resize import loose_border, shape_notes, with_shapes
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.selection import rest_of, selected
from onnxprune.methods.short_trial import trial_of
from onnxprune.methods.substitutes import choose_substitutes
from onnxprune.methods.synthetic import said_of, synthetic
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.turning import turned_if_few

NOT_REFITTED = (
    "the prune that made this plan refitted what stays, and a plan only says what to remove: without data this result "
    "is further from the original than that one; give the same data (--data)"
)


def check_source(model: Model, plan: Plan, force: bool, same_structure: bool = False) -> None:
    """Refuse a plan of another file.

    Args:
        same_structure: one of the same structure will do.

    Raises:
        UsageError: it was made for another one, and is not forced.
    """
    if model.sha256 == plan.source_sha256 or force:
        return
    if same_structure and not plan.structure:
        raise UsageError("the plan does not say which structure it was made for: it is of an older release; force it.")
    if same_structure and model.structure != plan.structure:
        raise UsageError(
            f"the plan was made for another structure than this model's ({counts_of(model.proto)}): names, shapes or "
            "operators differ; export both with the same program, or make a plan for this one."
        )
    if not same_structure:
        raise UsageError(
            f"the plan was made for another file (sha256 {plan.source_sha256[:12]}.., this one has "
            f"{model.sha256[:12]}..); make a plan for this one, say same_structure where only the weights "
            "differ, or force it where the tensors are the same."
        )


@on_one_thread
def apply(
    source: Source,
    options: ApplyOptions,
    data: DataSource | None = None,
    *,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> PruneResult:
    """Remove what a plan says.

    Args:
        source: the model that the plan was made for; it is not changed.
        data, runtime, progress: see `onnxprune.methods.prune.prune`.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot be read.
        UsageError: the plan was made for another model, or does not fit.
    """
    runtime, plan, model = runtime or Runtime(), options.read_plan(), load(source)
    check_source(model, plan, options.force, options.same_structure)
    require_data(options.effort, data, options.select)
    read = calibration(model, data) if data is not None else None
    given = selected(model, read, options.select, runtime) if read is not None else None
    samples = turned_if_few(given) if given is not None else None
    seen = samples.sizes if samples is not None else None
    short = shorten(model, plan.dropped, options.input_shapes)
    left, shapes = short.model if short is not None else model, sizes_left(short, options.input_shapes)
    loose = loose_border(left, plan.resize_io, plan.states)
    channels = analyse(left, shapes, options.heads, options.head_dim, loose, seen)
    keep = channels.keep(plan)
    border = border_left(short, channels, keep)
    cut = with_shapes(rewrite(channels, keep), channels, border)
    notes = (*shape_notes(channels, border), *notes_of(short))
    plan = replace(plan, source_sha256=model.sha256) if options.same_structure else plan
    result = PruneResult(cut, plan, channels, keep, {}, notes, uncompensated=cut, border=border, short=short)
    known = KnownSums.of(options.stats, model) if options.stats is not None else None
    if known is not None and short is not None:
        raise UsageError("statistics are of the whole model, and branches go: give data instead of stats.")
    if known is not None and samples is None and options.compensate in (None, "lstsq"):
        return closed_refit(result, known, runtime)
    if samples is None and options.compensate not in (None, "none"):
        samples = synthetic(whole_of(short) or channels, options.input_shapes, options.seed, runtime)
        result = replace(result, warnings=(*notes, *said_of(samples)))
    elif samples is None and plan.refitted and options.compensate is None:
        result = replace(result, warnings=(*notes, NOT_REFITTED))
    progress("refitting what stays")
    runtime = replace(runtime, memory=options.memory)
    effort = None if options.effort is None else Effort.of(options.effort)
    if samples is not None and options.compensate != "none":
        instead = choose_substitutes(short, samples, options.substitute, runtime, trial_of(channels, short, runtime))
        result = replace(result, substitutes=instead)
    aside = rest_of(read, given) if read is not None and given is not None and given is not read else None
    fitted = refit(
        result, samples, options.compensate, runtime, options.steps, progress=progress, effort=effort, aside=aside
    )
    return replace(fitted, samples=samples)
