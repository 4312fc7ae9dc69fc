"""Refit what stays after a prune to data. Nothing stays exact: it gives what the original gave, as nearly as it can."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.compensate.compensate import Mode, RefitOptions, compensate, kept_positions
from onnxprune.errors import UsageError
from onnxprune.methods.calibration import Runtime
from onnxprune.methods.result import PruneResult
from onnxprune.statistics.data import Data


def refit(result: PruneResult, data: Data | None, mode: str | None, runtime: Runtime) -> PruneResult:
    """Return the result with its layers refitted.

    Args:
        data: inputs of the original.
        mode: one of `MODES` of the options; None: "lstsq" with data, "none" without.

    Raises:
        ModelError: onnxruntime cannot run a part of one of the models.
        UsageError: a mode that needs data, without any.
    """
    if data is None and mode not in (None, "none"):
        raise UsageError(f"--compensate {mode} needs inputs of the model: give --data.")
    if data is None or mode == "none" or not result.keep:
        return result
    chosen: Mode = mode or "lstsq"  # type: ignore[assignment]
    original = result.channels.model
    positions = kept_positions(result.channels, result.keep)
    options = RefitOptions(threads=runtime.threads or None)
    done = compensate(original, result.model, positions, data, chosen, options)
    warnings = (*result.warnings, *data.warnings, *done.warnings)
    return replace(result, model=done.model, compensation=done, warnings=warnings)
