"""Gradient steps behind methods that end with a closed form, where a long effort asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxprune.compensate.effort import Effort
from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.methods.finetune import FinetuneResult, finetune
from onnxprune.methods.finetune_options import FinetuneOptions
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data


def improved(
    original: Model,
    compressed: Model,
    effort: str | None,
    data: Data | None,
    runtime: Runtime,
    seed: int,
    input_shapes: Mapping[str, tuple[int, ...]],
    progress: Callable[[str], None],
) -> tuple[FinetuneResult | None, tuple[str, ...]]:
    """Return what steps made of a model, and what there is to say; None: none were asked for, or possible."""
    if effort is None or data is None or not Effort.of(effort).is_long:
        return None, ()
    options = FinetuneOptions(effort=effort, seed=seed, input_shapes=input_shapes)
    try:
        found = finetune(original, compressed, data, options, runtime=runtime, progress=progress)
    except ModelError as error:
        return None, (f"no gradient steps: {error}",)
    return found, found.warnings
