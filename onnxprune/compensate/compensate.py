"""Compensation as everyone calls it: a pruned model in, a pruned model with refitted layers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.compensate.block_steps import block_steps
from onnxprune.compensate.distil import FEWEST_STEPS, Distilled, DistilOptions, TooDearError, before_last, distil
from onnxprune.compensate.refit import LayerError, Positions, Refit, RefitOptions, refit
from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed
from onnxprune.types import IntArray

Mode = Literal["none", "bias", "lstsq", "distil"]
MODES: tuple[Mode, ...] = ("none", "bias", "lstsq", "distil")

ENOUGH_STEPS = 60
"""With fewer steps of the whole network, as many seconds bring more in steps of one block after the other."""

__all__ = ["MODES", "Compensation", "LayerError", "Mode", "RefitOptions", "compensate", "kept_positions"]


@dataclass(frozen=True, eq=False)
class Compensation:
    """A compensated model.

    layers: the error of every refitted layer before and after.
    distilled: the loss before and after gradient steps, if there were any.
    warnings: what was done otherwise than asked.
    """

    model: Model
    layers: list[LayerError]
    distilled: Distilled | None = None
    warnings: tuple[str, ...] = ()


def compensate(
    original: Model,
    pruned: Model,
    positions: Positions,
    data: Iterable[Feed],
    mode: Mode = "lstsq",
    options: RefitOptions | None = None,
    steps: DistilOptions | None = None,
    progress: Callable[[str], None] = lambda text: None,
    aside: Iterable[Feed] = (),
) -> Compensation:
    """Return the pruned model with its layers refitted on calibration data, and the error of each before and after.

    Every linear reader (Conv, ConvTranspose, Gemm, MatMul) is fitted in topological order so that what it gives on the
    pruned network's activations is what the original gave. Nothing stays exact; a refit that does not make the
    error on held-out samples smaller is not used.

    Args:
        positions: of `kept_positions`: which positions of the original's tensors are still there.
        mode: "lstsq" (all weights), "bias" (mean and variance of each output channel only), "none", or "distil":
            after "lstsq" gradient steps on the distance of the whole network to the original (needs onnx-ad).
        steps: how many gradient steps, how large.
        progress: told which layers are fitted and which step is taken.
        aside: samples that nothing is fitted to, for steps to be judged on; without any, a part of the data is.

    Raises:
        ModelError: onnxruntime cannot run a part of one of the models.
        UsageError: an unknown mode.
    """
    if mode not in MODES:
        raise UsageError(f"--compensate {mode}: one of {', '.join(MODES)}.")
    if mode == "none":
        return Compensation(pruned, [])
    options, feeds = replace(options or RefitOptions(), recurrent=mode != "bias", shared=mode != "bias"), list(data)
    if mode == "bias":
        options = replace(options, mix=False, lstsq=replace(options.lstsq, match_only=True))
    result = refit(original, pruned, positions, feeds, options, progress)
    if mode != "distil":
        return Compensation(result.model, result.errors)
    try:
        plan = steps or DistilOptions(threads=options.threads)
        model, loss = _distilled(original, result, feeds, plan, progress, list(aside))
    except ModelError as error:
        return Compensation(result.model, result.errors, None, (f"no gradient steps: {error}",))
    return Compensation(model, result.errors, loss, loss.notes)


def _distilled(
    original: Model,
    result: Refit,
    feeds: Sequence[Feed],
    steps: DistilOptions,
    progress: Callable[[str], None],
    aside: Sequence[Feed],
) -> tuple[Model, Distilled]:
    cuts = {name: partial(result.cut, name) for name in result.compared}
    graphs = original.proto.graph, result.model.proto.graph
    ends = [tuple(before_last(graph, value.name) for graph in graphs) for value in graphs[0].output]
    outputs = {old: partial(result.cut, old) for old, new in ends if old == new}

    def whole(options: DistilOptions) -> tuple[Model, Distilled]:
        return distil(original, result.model, outputs, cuts, feeds, options, progress, aside)

    try:
        if steps.dear:
            raise TooDearError(steps.dear, 0)
        return whole(replace(steps, least=ENOUGH_STEPS))
    except TooDearError as dear:
        try:
            found = block_steps(original, result.model, outputs, result.cut, feeds, steps, progress, aside)
        except ModelError:
            if dear.steps < FEWEST_STEPS:
                raise dear from None
            return whole(steps)
        # blocks that bring the outputs no nearer may still do so together
        return found if found[1].steps or dear.steps < FEWEST_STEPS else whole(steps)


def kept_positions(channels: Channels, keep: Keep) -> Mapping[str, Sequence[IntArray | None]]:
    """Return the kept positions of every axis that loses some (None: the axis stays whole), by tensor."""
    table: dict[str, list[IntArray | None]] = {}
    shapes = channels.trace.shapes
    for name, axes in channels.positions(keep).items():
        whole = shapes.get(name, ())
        kept = [None if len(p) == size else p for p, size in zip(axes, whole, strict=False)]
        if any(p is not None for p in kept):
            table[name] = kept
    return table
