"""How far the outputs of whole candidates are from the original's, on samples that nothing was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data
from onnxprune.statistics.split import first, split
from onnxprune.types import Array

SAMPLES = (256, 128, 64, 32, 16)
SECONDS = 60.0
"""CPU seconds, as predicted, that the refits of candidates may take: fewer samples do where there are many."""
BATCH = 16


def parts(model: Model, data: Data, refits: int, samples: tuple[int, ...] = SAMPLES) -> tuple[Data, Data]:
    """Return samples to fit candidates to, and samples to compare them on.

    Args:
        refits: how many candidates will be fitted.
        samples: numbers of samples that would do, the best first.
    """
    fit, held = split(data)
    feed = next(iter(fit.batches(BATCH)))
    counts = [count for count in samples if count <= fit.samples] or [fit.samples]
    costs = {count: refits * closed_form_seconds(model, feed, count) for count in counts}
    count = next((count for count in counts if costs[count] <= SECONDS), counts[-1])
    return first(fit, count), first(held, count) if held is not None else first(fit, count)


@dataclass(eq=False)
class Distance:
    """The distance of models to one original. held: inputs of it."""

    original: Model
    held: Data
    runtime: Runtime

    def of(self, model: Model) -> float:
        """Return the mean squared difference of the outputs, relative to their variance, averaged over outputs."""
        found = self._outputs(model)
        errors = [
            np.square(found[n] - a).mean() / max(float(a.var()), 1e-30) for n, a in self._expected.items() if n in found
        ]
        return float(np.mean(errors)) if errors else 0.0

    @cached_property
    def _expected(self) -> dict[str, Array]:
        found = self._outputs(self.original)
        return {name: array for name, array in found.items() if array.dtype.kind == "f" and np.isfinite(array).all()}

    def _outputs(self, model: Model) -> dict[str, Array]:
        with open_session(model, threads=self.runtime.threads, provider=self.runtime.provider) as session:
            taken = {port.name for port in session.inputs}
            feeds = ({n: a for n, a in feed.items() if n in taken} for feed in self.held.batches(BATCH))
            parts = [session.run(feed) for feed in feeds]
        return {name: np.concatenate([part[name].ravel() for part in parts]) for name in parts[0]}
