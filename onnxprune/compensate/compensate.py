"""Compensation as everyone calls it: a pruned model in, a pruned model with refitted layers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from onnxprune.channels.analyse import Channels
from onnxprune.channels.groups import Keep
from onnxprune.compensate.refit import LayerError, Positions, RefitOptions, refit
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.statistics.feeds import Feed
from onnxprune.types import IntArray

Mode = Literal["none", "bias", "lstsq"]
MODES: tuple[Mode, ...] = ("none", "bias", "lstsq")

__all__ = ["MODES", "LayerError", "Mode", "RefitOptions", "compensate", "kept_positions"]


def compensate(
    original: Model,
    pruned: Model,
    positions: Positions,
    data: Iterable[Feed],
    mode: Mode = "lstsq",
    options: RefitOptions | None = None,
) -> tuple[Model, list[LayerError]]:
    """Return the pruned model with its layers refitted on calibration data, and the error of each before and after.

    Every linear reader (Conv, ConvTranspose, Gemm, MatMul) is fitted in topological order so that what it gives on the
    pruned network's activations is what the original gave. Nothing stays exact; a refit that does not make the
    error on held-out samples smaller is not used.

    Args:
        positions: of `kept_positions`: which positions of the original's tensors are still there.
        mode: "lstsq" (all weights), "bias" (mean and variance of each output channel only) or "none".

    Raises:
        ModelError: onnxruntime cannot run a part of one of the models.
        UsageError: an unknown mode.
    """
    if mode not in MODES:
        raise UsageError(f"--compensate {mode}: one of {', '.join(MODES)}.")
    if mode == "none":
        return pruned, []
    options = options or RefitOptions()
    if mode == "bias":
        options = replace(options, lstsq=replace(options.lstsq, match_only=True))
    return refit(original, pruned, positions, data, options)


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
