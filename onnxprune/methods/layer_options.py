"""Options that methods which change single layers have in common: which layers, shapes of inputs, the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.option import Options, option


@dataclass(frozen=True, kw_only=True)
class LayerOptions(Options):
    """Part of the options of a method; patterns are globs over node and tensor names."""

    skip: tuple[str, ...] = option((), "Leave nodes or tensors alone (repeatable).", metavar="PATTERN")
    only: tuple[str, ...] = option((), "Change nothing but these (repeatable).", metavar="PATTERN")
    stats: Path | None = option(
        None,
        "Statistics that onnxprune stats collected (--patches, for convolutions with taps), instead of --data.",
        metavar="FILE",
        untold=True,
    )
    input_shapes: Mapping[str, tuple[int, ...]] = option(dict, "Input -> full shape, where dynamic sizes are fixed.")
    seed: int = option(0, "Seed of what is drawn by chance [default: 0].", least=0)
