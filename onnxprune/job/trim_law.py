"""What a trimmed model must show: it gives what the original gives, at what is left of the border."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.evidence.examine import Evidence
    from onnxprune.graph.model import Model
    from onnxprune.job.original import Original
    from onnxprune.methods.trim import TrimResult

SAMPLES = 5


def examine_trim(original: Original, result: TrimResult, compressed: Path | Model, required: bool) -> Evidence:
    """Compare with the original where both promise the same, and with the model before the cut, what went zeroed.

    Raises:
        OnnxpruneError: the result does not run, or differs: our defect.
        DataError: the data of the user do not fit.
        GateError: the result gives NaN or infinities where the original gives numbers.
    """
    from onnxprune.evidence.examine import examine, hold_to_law
    from onnxprune.evidence.oracle import masked_model

    run = original.run
    found = examine(
        original.source,
        compressed,
        lambda: original.reference,
        original.close,
        None,
        verify=run.verify,
        required=required,
        own_data=original.given is not None,
        threads=run.threads,
        provider=run.provider,
    )
    if found.comparison is None or run.verify is False or not result.cuts:
        return found
    uncut = replace(result.border, kept={}, spread={})
    feeds = tuple(uncut.narrowed(feed) for feed in original.reference.samples[:SAMPLES])
    reference = replace(original.reference, samples=feeds)
    masked = masked_model(result.channels, {})
    law = hold_to_law(reference, result.narrow or result.model, result.prepared, masked, run.threads, run.provider)
    warnings = (*found.warnings, *law.warnings)
    return replace(found, masked=law.masked, lines=(*found.lines, *law.lines), warnings=warnings)
