"""Refit what stays after a prune to data. Nothing stays exact: it gives what the original gave, as nearly as it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from onnxprune.compensate.compensate import Compensation, LayerError, Mode, RefitOptions, compensate, kept_positions
from onnxprune.compensate.effort import Effort
from onnxprune.compensate.refit import MEMORY
from onnxprune.compensate.substitute_values import merged
from onnxprune.errors import UsageError
from onnxprune.graph.follow import Place, placed
from onnxprune.graph.sweep import swept
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import Seen, look
from onnxprune.methods.step_count import QUICK, steps_of
from onnxprune.methods.substitutes import with_substitutes
from onnxprune.statistics.data import Data

RESIZED = "no gradient steps were taken after the refit: inputs changed their shape"
PARTED = "no gradient steps were taken after the refit: samples take different branches of the model"


def refit(
    result: PruneResult,
    data: Data | None,
    mode: str | None,
    runtime: Runtime,
    steps: int | None = None,
    seen: Seen | None = None,
    progress: Callable[[str], None] = lambda text: None,
    effort: Effort | None = None,
    aside: Data | None = None,
) -> PruneResult:
    """Return the result with its layers refitted.

    Args:
        data: inputs of the original.
        mode: one of `MODES` of the options; None: with data least squares, then gradient steps where the network is
            small enough for them; "none" without data.
        steps: number of gradient steps; None leaves it to the size of the network.
        seen: the original, with all its branches, as the data see it; None: found out here.
        progress: told what is being done.
        effort: how long gradient steps go on; None: as `steps` and the size of the network say.
        aside: samples that nothing is fitted to, for steps to be judged on.

    Raises:
        ModelError: onnxruntime cannot run a part of one of the models.
        UsageError: a mode that needs data, without any.
    """
    if data is None and mode not in (None, "none"):
        raise UsageError(f"--compensate {mode} needs inputs of the model: give --data.")
    if data is None or mode == "none" or not result.removes:
        return result
    result, totals = with_substitutes(result), [substitute.total for substitute in result.substitutes]
    seen = seen or look(result.view, data, runtime)
    if seen.parts:
        return _refit_parts(result, seen, mode or "distil", runtime)  # type: ignore[arg-type]  # options checked it
    original, pruned = seen.model, seen.form(result.model)
    positions = seen.positions(kept_positions(result.channels, result.keep))
    plan, note = None, RESIZED
    if result.border.is_open:
        plan, note = steps_of(seen, result, data, mode, steps, runtime, effort)
    if not result.border.is_open and mode == "distil":
        mode = "lstsq"
    chosen: Mode = mode or ("lstsq" if note else "distil")  # type: ignore[assignment]  # options checked it
    options = RefitOptions(fresh=frozenset(totals), threads=runtime.threads or None, memory=runtime.memory or MEMORY)
    done: Compensation = compensate(original, pruned, positions, data, chosen, options, plan, progress, aside or ())
    notes = (note,) if note and note != QUICK and mode is None else ()
    warnings = (*result.warnings, *data.warnings, *done.warnings, *notes)
    model = swept(seen.restored(done.model, pruned, result.model), result.model)
    model = merged(model, totals)
    refitted = replace(result.plan, refitted=True)
    return replace(result, model=model, plan=refitted, compensation=done, warnings=warnings)


def _refit_parts(result: PruneResult, seen: Seen, mode: Mode, runtime: Runtime) -> PruneResult:
    """Return the result refitted where samples part: what all share, each branch on its samples, what comes behind."""
    positions = kept_positions(result.channels, result.keep)
    behind, fitted, stages = after(seen.model.proto.graph), set[Place](), list[tuple[Seen, frozenset[str]]]()
    for here in (seen, *seen.parts):
        own = [(node, place) for node, place in placed(here.model) if place not in fitted and node.op_type != "If"]
        fitted |= {place for _, place in own}
        names = frozenset(name for node, _ in own for name in node.output)
        stages.append((here, names if here is not seen else names - behind))
    stages.append((seen, frozenset(behind)))
    model, layers, warnings = result.model, dict[str, LayerError](), list[str]()
    for here, only in stages:
        options = RefitOptions(only=only, threads=runtime.threads or None, memory=runtime.memory or MEMORY)
        form = here.form(model)
        kept = here.positions(positions)
        done = compensate(here.model, form, kept, here.data, "lstsq" if mode == "distil" else mode, options)
        model = here.restored(done.model, form, model)
        layers |= {layer.name: layer for layer in done.layers}
        warnings += done.warnings
    model = swept(model, result.model)
    done = Compensation(model, list(layers.values()), None, tuple(warnings))
    note = (PARTED,) if mode == "distil" else ()
    result = replace(result, plan=replace(result.plan, refitted=True))
    return replace(result, model=model, compensation=done, warnings=(*result.warnings, *warnings, *note))


def after(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that an If before them decides on."""
    names: set[str] = set()
    for node in graph.node:
        if node.op_type == "If" or any(name in names for name in node.input):
            names.update(node.output)
    return names
