"""Refit what stays after a prune to data. Nothing stays exact: it gives what the original gave, as nearly as it can."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from math import prod

import onnx

from onnxprune.channels.analyse import Channels
from onnxprune.compensate.compensate import Compensation, LayerError, Mode, RefitOptions, compensate, kept_positions
from onnxprune.compensate.distil import DistilOptions
from onnxprune.compensate.refit import MEMORY
from onnxprune.errors import UsageError
from onnxprune.graph import count
from onnxprune.graph.follow import Place, placed
from onnxprune.methods.calibration import Runtime
from onnxprune.methods.result import PruneResult
from onnxprune.methods.seen import Seen, look
from onnxprune.statistics.batch import activation_elements, batch_of, batch_size
from onnxprune.statistics.data import Data

STEP_MACS = 4e12
"""Multiply-adds that gradient steps may cost where nobody asked for them: about two minutes of a core."""
ELEMENT_MACS = 200
"""What it costs to make one number of an activation and its gradient, in multiply-adds: measured on small networks,
where memory takes the time."""
MOST_STEPS = DistilOptions.steps
PARTED = "no gradient steps were taken after the refit: samples take different branches of the model"
FEWEST_STEPS, FEWEST_SAMPLES = 60, 16
"""With less than that, steps are left out."""
ACTIVATION_BYTES = 1 << 29
"""Activations of one run of the pruned network; the gradient needs about three times as much."""


def refit(
    result: PruneResult,
    data: Data | None,
    mode: str | None,
    runtime: Runtime,
    steps: int | None = None,
    seen: Seen | None = None,
) -> PruneResult:
    """Return the result with its layers refitted.

    Args:
        data: inputs of the original.
        mode: one of `MODES` of the options; None: with data least squares, then gradient steps where the network is
            small enough for them; "none" without data.
        steps: number of gradient steps; None leaves it to the size of the network.
        seen: the original as the data see it; None: found out here.

    Raises:
        ModelError: onnxruntime cannot run a part of one of the models.
        UsageError: a mode that needs data, without any.
    """
    if data is None and mode not in (None, "none"):
        raise UsageError(f"--compensate {mode} needs inputs of the model: give --data.")
    if data is None or mode == "none" or not result.keep:
        return result
    plan, note = _steps(result, data, steps, runtime)
    chosen: Mode = mode or ("lstsq" if note else "distil")  # type: ignore[assignment]
    seen = seen or look(result.channels.view, data, runtime)
    if seen.parts:
        return _refit_parts(result, seen, chosen, runtime)
    original, pruned = seen.model, seen.form(result.model)
    positions = kept_positions(result.channels, result.keep)
    options = RefitOptions(threads=runtime.threads or None, memory=runtime.memory or MEMORY)
    done: Compensation = compensate(original, pruned, positions, data, chosen, options, plan)
    notes = (note,) if note and mode is None else ()
    warnings = (*result.warnings, *data.warnings, *done.warnings, *notes)
    model = seen.restored(done.model, pruned, result.model)
    return replace(result, model=model, compensation=done, warnings=warnings)


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
        done = compensate(here.model, form, positions, here.data, "lstsq" if mode == "distil" else mode, options)
        model = here.restored(done.model, form, model)
        layers |= {layer.name: layer for layer in done.layers}
        warnings += done.warnings
    done = Compensation(model, list(layers.values()), None, tuple(warnings))
    note = (PARTED,) if mode == "distil" else ()
    return replace(result, model=model, compensation=done, warnings=(*result.warnings, *warnings, *note))


def after(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that an If before them decides on."""
    names: set[str] = set()
    for node in graph.node:
        if node.op_type == "If" or any(name in names for name in node.input):
            names.update(node.output)
    return names


def _steps(result: PruneResult, data: Data, asked: int | None, runtime: Runtime) -> tuple[DistilOptions, str]:
    """Return how many steps of how many samples to take, and why none are taken unless asked for."""
    channels, shapes = result.channels, result.channels.trace.shapes
    batch, scale = batch_of(channels.view, channels.trace), _scale(channels, data)
    after = channels.shapes(result.keep)
    old, new = (scale * sum(count.macs(channels.view, s).values()) / batch for s in (shapes, after))
    numbers = scale * activation_elements(channels.view, after) / batch
    plain = DistilOptions(threads=runtime.threads or None)
    size = batch_size(channels.view, channels.trace, int(ACTIVATION_BYTES / scale), plain.samples)
    sample = max(1.0, old + 3 * new + ELEMENT_MACS * numbers)
    samples = int(min(plain.samples, max(FEWEST_SAMPLES, STEP_MACS / (MOST_STEPS // 2 * sample))))
    steps = int(min(MOST_STEPS, STEP_MACS / (samples * sample)))
    options = replace(plain, steps=asked or max(steps, FEWEST_STEPS), samples=samples, batch=size)
    if find_spec("onnx_ad") is None:
        return options, "no gradient steps were taken after the refit: they need onnx-ad; pip install onnx-ad."
    if steps < FEWEST_STEPS and not asked:
        cost = FEWEST_STEPS * samples * sample / 1e12
        return options, (
            f"no gradient steps were taken after the refit: {FEWEST_STEPS} would cost {cost:.1f} trillion "
            "multiply-adds; --compensate distil takes them."
        )
    return options, ""


def _scale(channels: Channels, data: Data) -> float:
    """Return how large a sample is against that of the trace, which makes up dynamic sizes."""
    feed = next(iter(data))
    traced = {name: channels.trace.shapes.get(name, ()) for name in feed}
    sizes = [(prod(array.shape[1:]), prod(traced[name][1:])) for name, array in feed.items()]
    return float(max(given for given, _ in sizes) / max(1, *(made for _, made in sizes)))
