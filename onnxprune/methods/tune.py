"""The smallest model that keeps a bound: remove a step, refit, measure, keep or undo, with ever smaller steps.

The steps go down in the share of MACs; where a budget goes is decided by measured errors (`allocate.sensitivity`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.allocate.measures import MEASURES
from onnxprune.allocate.sensitivity import knapsack
from onnxprune.channels.analyse import analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.model import Source, load, save
from onnxprune.methods.calibration import DataSource, Runtime, calibration
from onnxprune.methods.candidates import Judge
from onnxprune.methods.choice import Clock, measured_curves, prepare
from onnxprune.methods.options import PruneOptions
from onnxprune.methods.prune import require_weights
from onnxprune.methods.refit import refit
from onnxprune.methods.result import PruneResult
from onnxprune.score.activity import Activity
from onnxprune.validate.gates import Evaluate, Gates

FORMAT = "onnxprune-tune"


@dataclass(frozen=True)
class Candidate:
    """One model of the search: the share of MACs asked for, what is left, and how near it is to the original.

    cosine, agreement: of the worst output. drop: of the user's value. latency: share left, where it was measured.
    kept: whether it keeps the bound.
    """

    asked: float
    macs: float
    params: float
    kept: bool
    cosine: float | None = None
    agreement: float | None = None
    drop: float | None = None
    latency: float | None = None


@dataclass(frozen=True, eq=False)
class TuneResult:
    """The smallest model that keeps the bound, and every candidate."""

    result: PruneResult
    best: Candidate
    curve: tuple[Candidate, ...]

    def pareto(self) -> list[Candidate]:
        """Return the candidates that no other one beats in both MACs and closeness."""
        return [a for a in self.curve if not any(_beats(b, a) for b in self.curve)]


def tune(
    source: Source,
    data: DataSource,
    gates: Gates,
    options: PruneOptions | None = None,
    *,
    evaluate: Evaluate | None = None,
    step: float = 0.1,
    finest: float = 0.02,
    state: Path | None = None,
    workers: int = 1,
    latency: bool = False,
    runtime: Runtime | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> TuneResult:
    """Return the smallest model that keeps the bound.

    Args:
        data: inputs of the kind that the model is used on, without labels.
        gates: the bound.
        options: score, align, skip, only, compensate and so on; targets are not looked at.
        evaluate: function of a model path that returns a number, higher is better; for `gates.max_drop`.
        step, finest: first and last difference of the share of MACs between candidates.
        state: file that keeps what was measured, so that an interrupted search goes on; removed at the end.
        workers: candidates measured side by side; more than one measures ahead.
        latency: measure every candidate's latency too.

    Raises:
        DataError: the data do not fit, or `evaluate` raises or returns no number.
        NothingToPruneError: not even the smallest step keeps the bound.
        UsageError: there is no bound.
    """
    if not gates.needs_outputs and gates.max_drop is None:
        raise UsageError("tune needs a bound: --max-drop with --eval, --min-cosine, --min-agreement or --min-sqnr.")
    if not 0 < finest <= step < 1:
        raise UsageError(f"steps {step:g} and {finest:g}: 0 < finest <= step < 1 is needed.")
    search = _Search(source, data, gates, replace(options or PruneOptions(), ratio=None), evaluate, latency,
                     runtime or Runtime(), progress, state)  # fmt: skip
    best = search.run(step, finest, workers)
    result = search.build(best.asked)
    if state is not None:
        state.unlink(missing_ok=True)
    return TuneResult(result, best, tuple(search.done.values()))


class _Search:
    def __init__(
        self,
        source: Source,
        data: DataSource,
        gates: Gates,
        options: PruneOptions,
        evaluate: Evaluate | None,
        latency: bool,
        runtime: Runtime,
        progress: Callable[[str], None],
        state: Path | None,
    ) -> None:
        self._model = load(source)
        self._data = calibration(self._model, data)
        self._gates, self._options, self._runtime, self._progress = gates, options, runtime, progress
        self._channels = analyse(self._model, dict(options.input_shapes), options.heads, options.head_dim)
        require_weights(self._channels)
        activity = Activity(self._channels.view, self._data, runtime.threads, runtime.provider, options.memory)
        progress("scoring channels")
        request, self._reasons, self._warnings = prepare(self._channels, options, Clock(), activity)
        self._request = replace(request, scope="sensitivity")
        self._table, notes = measured_curves(self._channels, self._request, activity, progress)
        self._warnings += notes
        self._measures = {name: MEASURES[name](self._channels) for name in ("macs", "params")}
        self._judge = Judge(self._model, self._data, evaluate, latency, runtime)
        self._state = state
        self._key = [self._model.sha256, self._data.sha256, options.to_dict(), asdict(gates)]
        self.done: dict[float, Candidate] = self._read()

    def run(self, step: float, finest: float, workers: int) -> Candidate:
        """Walk down, undo what breaks the bound, halve the step."""
        best: Candidate | None = None
        at = 1.0
        with ThreadPoolExecutor(max(1, workers)) as pool:
            while step >= finest * (1 - 1e-9):
                ahead = [round(at - step * number, 6) for number in range(1, max(1, workers) + 1)]
                ahead = [share for share in ahead if share > 0]
                kept = None
                for candidate in self._measured(ahead, pool):
                    if candidate is None or not candidate.kept:
                        break
                    kept = candidate
                if kept is None:
                    step /= 2
                    continue
                best, at = kept, kept.asked
                if len(ahead) > 1 and kept.asked != ahead[-1]:
                    step /= 2
        if best is None:
            raise NothingToPruneError(self._why_nothing())
        return best

    def build(self, share: float) -> PruneResult:
        """Return the model that leaves a share of the MACs."""
        keep = self._keep(share)
        cut = rewrite(self._channels, keep)
        plan = self._channels.plan(keep)
        warnings = tuple(self._warnings)
        result = PruneResult(cut, plan, self._channels, keep, self._reasons, warnings, uncompensated=cut)
        return refit(result, self._data, self._options.compensate, self._runtime)

    def _keep(self, share: float) -> Keep:
        return knapsack(self._request, self._measures["macs"], share, "macs", self._table, self._options.tie_blocks)

    def _measured(self, shares: Sequence[float], pool: ThreadPoolExecutor) -> list[Candidate | None]:
        """Return the candidates, None for a share that cannot be reached; all are measured side by side."""
        waiting: list[Candidate | Future[Candidate | None] | None] = [
            self.done[share] if share in self.done else pool.submit(self._measure, share) for share in shares
        ]
        found: list[Candidate | None] = []
        for item in waiting:
            candidate = item.result() if isinstance(item, Future) else item
            if candidate is not None and candidate.asked not in self.done:
                self.done[candidate.asked] = candidate
                self._write()
            found.append(candidate)
        return found

    def _measure(self, share: float) -> Candidate | None:
        self._progress(f"trying {share:.3g} of the MACs")
        try:
            result = self.build(share)
        except NothingToPruneError:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            save(result.model, path, source=self._model)
            found = self._judge(path)
        macs, params = (self._measures[name](result.keep) for name in ("macs", "params"))
        kept = not self._gates.failures(found.parity, found.drop)
        return Candidate(share, macs, params, kept, **found.figures())

    def _read(self) -> dict[float, Candidate]:
        if self._state is None or not self._state.is_file():
            return {}
        try:
            document = json.loads(self._state.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["key"] != json.loads(json.dumps(self._key)):
                raise KeyError("key")
            return {point["asked"]: Candidate(**point) for point in document["candidates"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"the state '{self._state}' is of another search (model, data, options or bound): remove it."
            ) from error

    def _write(self) -> None:
        if self._state is None:
            return
        document: dict[str, Any] = {
            "format": FORMAT,
            "key": self._key,
            "candidates": [asdict(candidate) for candidate in self.done.values()],
        }
        temporary = self._state.with_name(f"{self._state.name}.part")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        temporary.replace(self._state)

    def _why_nothing(self) -> str:
        if not self.done:
            return "no step could be taken: the groups allow none so small; allow more (--align 1, fewer --skip)."
        nearest = max(self.done.values(), key=lambda candidate: candidate.asked)
        shown = ", ".join(
            f"{name} {value:.4g}"
            for name, value in asdict(nearest).items()
            if name in ("cosine", "agreement", "drop") and value is not None
        )
        return (
            f"the bound cannot be kept: with {nearest.macs:.3f} of the MACs left there is {shown}. Nothing was written."
        )


def _beats(one: Candidate, other: Candidate) -> bool:
    """Tell whether a candidate is as small and as near as another one, and better in something."""
    pairs = [(-one.macs, -other.macs)]
    if one.drop is not None and other.drop is not None:
        pairs.append((-one.drop, -other.drop))
    elif one.cosine is not None and other.cosine is not None:
        pairs.append((one.cosine, other.cosine))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
