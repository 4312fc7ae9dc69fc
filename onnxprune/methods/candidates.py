"""How near a candidate of a search is to the original: outputs, the user's value, latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.evidence.bench import bench
from onnxprune.evidence.compare import compare, open_reference
from onnxprune.evidence.elsewhere_bench import timed_there
from onnxprune.evidence.evaluation import Evaluate, evaluate
from onnxprune.evidence.parity import Parity
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.model import Model
from onnxprune.graph.save import save
from onnxprune.graph.session import file_of, open_session
from onnxprune.methods.elsewhere import stopwatch_of
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.data import Data


@dataclass(frozen=True)
class Judgement:
    """What was measured of one candidate."""

    parity: Mapping[str, Parity | None]
    drop: float | None

    def figures(self) -> dict[str, float | None]:
        """Return the figures of the worst output, and the drop."""
        found = [parity for parity in self.parity.values() if parity is not None]
        cosines = [p.cosine for p in found if p.cosine is not None]
        agreements = [p.agreement for p in found if p.agreement is not None]
        return {
            "cosine": min(cosines, default=None),
            "agreement": min(agreements, default=None),
            "drop": self.drop,
        }


class CandidateJudge:
    """Measures candidates against one original, which is opened once.

    before: the user's value of the original.
    """

    def __init__(
        self, model: Model, data: Data, function: Evaluate | None, runtime: Runtime, before: float | None = None
    ) -> None:
        self._function, self._runtime = function, runtime
        threads, provider = runtime.threads, runtime.provider
        self._reference = open_reference(
            model, file=file_of(model), data=data, data_count=data.samples, threads=threads, provider=provider
        )
        self.before = value_of(model, function) if before is None and function is not None else before

    def __call__(self, path: Path) -> Judgement:
        """Return how near a candidate is.

        Raises:
            DataError: the user's function raises or returns no number.
        """
        with open_session(path, threads=self._runtime.threads, provider=self._runtime.provider) as session:
            parity = compare(self._reference, session).parity
        if self._function is None or self.before is None:
            return Judgement(parity, None)
        return Judgement(parity, self.before - evaluate(self._function, path, name_of(self._function)))


def value_of(model: Model, function: Evaluate) -> float:
    """Return the user's value of the original, written to a file if it is none."""
    name = name_of(function)
    if model.path is not None and model.path.is_file():
        return evaluate(function, model.path, name)
    with scratch_folder() as folder:
        path = Path(folder) / "original.onnx"
        save(model, path)
        return evaluate(function, path, name)


def name_of(function: Evaluate) -> str:
    """Return how errors name the user's function."""
    return str(getattr(function, "__name__", "function"))


def latency_share(model: Model, candidate: Model, data: Data, runtime: Runtime) -> float:
    """Return the share of the original's latency that is left; nothing else should run meanwhile."""
    feeds = next(iter(data.batches(1)))
    watch = stopwatch_of(runtime)
    if watch is not None:
        before, after = timed_there(watch, [model, candidate], feeds)
        return after.steady_ms / before.steady_ms
    timings = bench(
        [model, candidate],
        runs=60,
        seconds=3,
        threads=runtime.threads,
        provider=runtime.provider,
        feeds=feeds,
        energy=False,
    )
    before, after = timings.values()
    return after.steady_ms / before.steady_ms
