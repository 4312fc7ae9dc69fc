"""Looks at what a step gave: against the original, and against the model before with the removed channels zeroed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.graph.model import Model
from onnxprune.job.original import Original, traced
from onnxprune.job.outcome import Done, pruned_of
from onnxprune.job.run import Run
from onnxprune.job.trim_law import examine_trim

if TYPE_CHECKING:
    from onnxprune.evidence.compare import Reference
    from onnxprune.evidence.examine import Evidence
    from onnxprune.evidence.masked import MaskedOriginal
    from onnxprune.methods.result import PruneResult

MASKED_SAMPLES = 8
"""Masked parity is a law, which a few samples show."""


class Examiner:
    """Examines the steps of one job."""

    def __init__(self, original: Original, run: Run) -> None:
        self._original = original
        self._run = run

    def examined(self, done: Done, compressed: Path | Model, required: bool) -> Evidence:
        """Compare with the original; a first step also with what it removed zeroed."""
        if hasattr(done.result, "prepared"):
            return examine_trim(self._original, done.result, compressed, required)
        pruned = pruned_of(done.result) if done.number == 1 else None
        if pruned is not None:
            self._original.traced = pruned.view, pruned.trace
        original = self._original
        return self._examine(original.source, compressed, lambda: original.reference, original.close, pruned, required)

    def masked(self, done: Done, before: Model, compressed: Path | Model) -> Evidence | None:
        """Check a later step that removed channels against the model before it with these channels zeroed."""
        pruned, run = pruned_of(done.result), self._run
        if pruned is None or not pruned.removes or run.verify is False:
            return None
        samples = min(MASKED_SAMPLES, run.samples or MASKED_SAMPLES)
        opened: list[Reference] = []

        def reference() -> Reference:
            opened.append(self._original.opened(before, traced(before, run), samples))
            return opened[0]

        def close() -> None:
            for item in opened:
                item.session.close()

        try:
            return self._examine(before, compressed, reference, close, pruned, False)
        finally:
            close()

    def _examine(
        self,
        before: Model,
        compressed: Path | Model,
        reference: Callable[[], Reference],
        close: Callable[[], None],
        pruned: PruneResult | None,
        required: bool,
    ) -> Evidence:
        from onnxprune.evidence.examine import examine

        run = self._run
        return examine(
            before,
            compressed,
            reference,
            close,
            None if pruned is None else partial(_zeroed, pruned),
            verify=run.verify,
            required=required,
            own_data=self._original.judged is not None,
            threads=run.threads,
            provider=run.provider,
            left=pruned.channels.view if pruned is not None else None,
            uncompensated=pruned.uncompensated if pruned is not None and pruned.compensation is not None else None,
        )


def _zeroed(pruned: PruneResult) -> MaskedOriginal:
    from onnxprune.evidence.dropped import masked_original

    return masked_original(pruned.channels, pruned.keep, pruned.short)
