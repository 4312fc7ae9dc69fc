"""How near a candidate of a search is to the original: outputs, the user's value, latency."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.graph.model import Model, save
from onnxprune.methods.calibration import Runtime
from onnxprune.statistics.data import Data
from onnxprune.validate.bench import bench
from onnxprune.validate.compare import compare, open_reference
from onnxprune.validate.gates import Evaluate, evaluate
from onnxprune.validate.parity import Parity
from onnxprune.validate.session import file_of, open_session


@dataclass(frozen=True)
class Judgement:
    """What was measured of one candidate."""

    parity: Mapping[str, Parity | None]
    drop: float | None
    latency: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the figures of the worst output, the drop and the latency."""
        found = [parity for parity in self.parity.values() if parity is not None]
        cosines = [p.cosine for p in found if p.cosine is not None]
        agreements = [p.agreement for p in found if p.agreement is not None]
        return {
            "cosine": min(cosines, default=None),
            "agreement": min(agreements, default=None),
            "drop": self.drop,
            "latency": self.latency,
        }


class Judge:
    """Measures candidates against one original, which is opened and evaluated once."""

    def __init__(self, model: Model, data: Data, function: Evaluate | None, latency: bool, runtime: Runtime) -> None:
        self._model, self._data, self._function, self._latency, self._runtime = model, data, function, latency, runtime
        threads, provider = runtime.threads, runtime.provider
        self._reference = open_reference(
            model, file=file_of(model), data=data, data_count=data.samples, threads=threads, provider=provider
        )
        self._before: float | None = None
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> Judgement:
        """Return how near a candidate is.

        Raises:
            DataError: the user's function raises or returns no number.
        """
        with open_session(path, threads=self._runtime.threads, provider=self._runtime.provider) as session:
            parity = compare(self._reference, session).parity
        return Judgement(parity, self._drop(path), self._share(path))

    def _drop(self, path: Path) -> float | None:
        if self._function is None:
            return None
        name = getattr(self._function, "__name__", "function")
        with self._lock:
            if self._before is None:
                self._before = self._original(self._function, name)
        return self._before - evaluate(self._function, path, name)

    def _original(self, function: Evaluate, name: str) -> float:
        """Return the user's value of the original, written to a file if it is none."""
        if self._model.path is not None and self._model.path.is_file():
            return evaluate(function, self._model.path, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "original.onnx"
            save(self._model, path)
            return evaluate(function, path, name)

    def _share(self, path: Path) -> float | None:
        if not self._latency:
            return None
        with self._lock:
            feeds = next(iter(self._data.batches(1)))
            threads, provider = self._runtime.threads, self._runtime.provider
            timings = bench([self._model, path], runs=60, seconds=3, threads=threads, provider=provider, feeds=feeds)
        before, after = timings.values()
        return after.median_ms / before.median_ms
