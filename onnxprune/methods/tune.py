"""The smallest model that keeps a bound: remove a step, refit, measure, keep or undo, with ever smaller steps.

The steps go down in the share of MACs; where a budget goes is decided by measured errors (`allocate.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from onnxprune.allocate.measured_errors import knapsack
from onnxprune.allocate.measures import MEASURES
from onnxprune.channels.analyse import analyse
from onnxprune.channels.groups import Keep
from onnxprune.compensate.effort import Effort
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.evidence.evaluation import Evaluate
from onnxprune.evidence.limits import GateLimits
from onnxprune.graph.drop import shorten
from onnxprune.graph.model import Model, Source, load
from onnxprune.methods.calibration import DataSource, calibration
from onnxprune.methods.candidates import latency_share, value_of
from onnxprune.methods.choice import Clock, measured_curves, prepare
from onnxprune.methods.depth import whole_of
from onnxprune.methods.gather import KnownSums
from onnxprune.methods.prune import require_weights
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.seen import look
from onnxprune.methods.selection import selected
from onnxprune.methods.share_search import SearchPlace, SearchPoint, SearchState
from onnxprune.methods.trials import SearchTask, Trials, build
from onnxprune.methods.unfitted import Unfitted, unfitted
from onnxprune.processes.crew import at_work
from onnxprune.report import Report
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.suspicion import suspicions

__all__ = ["SearchPoint", "TuneResult", "tune"]


@dataclass(frozen=True, eq=False)
class TuneResult:
    """The smallest model that keeps the bound, and every candidate."""

    result: PruneResult
    best: SearchPoint
    curve: tuple[SearchPoint, ...]
    report: Report | None = None

    @property
    def model(self) -> Model:
        """The smallest model that keeps the bound."""
        return self.result.model

    def pareto(self) -> list[SearchPoint]:
        """Return the candidates that no other one beats in both MACs and closeness."""
        return [a for a in self.curve if not any(_beats(b, a) for b in self.curve)]


@on_one_thread
def tune(
    source: Source,
    data: DataSource,
    gates: GateLimits,
    options: PruneOptions | None = None,
    *,
    judged: Data | None = None,
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
        judged: inputs that candidates are judged on; None: the data themselves.
        gates: the bound.
        options: score, align, skip, only, compensate and so on; targets are not looked at.
        evaluate: function of a model path that returns a number, higher is better; for `gates.max_drop`.
        step, finest: first and last difference of the share of MACs between candidates.
        state: file that keeps what was measured, so that an interrupted search goes on; removed at the end.
        workers: processes that measure candidates side by side, ahead of the search; the result is the same.
        latency: measure every candidate's latency too, at the end, when nothing else runs.

    Raises:
        DataError: the data do not fit, or `evaluate` raises or returns no number.
        NothingToPruneError: not even the smallest step keeps the bound.
        UsageError: there is no bound.
    """
    if not gates.needs_outputs and gates.max_drop is None:
        raise UsageError("tune needs a bound: --max-drop with --eval, --min-cosine, --min-agreement or --min-sqnr.")
    if not 0 < finest <= step < 1:
        raise UsageError(f"steps {step:g} and {finest:g}: 0 < finest <= step < 1 is needed.")
    wanted = replace(options or PruneOptions(), ratio=None)
    search = _TuneSearch(source, data, judged, gates, wanted, evaluate, runtime or Runtime(), progress, state)
    try:
        crew = at_work()
        best = search.run(step, finest, crew.size if crew is not None else max(1, workers))
    except NothingToPruneError:
        if state is not None:
            state.unlink(missing_ok=True)
        raise
    if latency:
        search.with_latency()
    effort = wanted.wanted_effort
    result = search.build(best.asked, effort if effort is not None and effort.is_long else None)
    if state is not None:
        state.unlink(missing_ok=True)
    return TuneResult(result, search.visited[best.asked], tuple(search.visited.values()))


class _TuneSearch:
    def __init__(
        self,
        source: Source,
        data: DataSource,
        judged: Data | None,
        gates: GateLimits,
        options: PruneOptions,
        evaluate: Evaluate | None,
        runtime: Runtime,
        progress: Callable[[str], None],
        state: Path | None,
    ) -> None:
        self._model = load(source)
        self._data = selected(self._model, calibration(self._model, data), options.select, runtime)
        self._gates, self._options, self._progress = gates, options, progress
        self._runtime = replace(runtime, memory=options.memory)
        shapes, sizes = dict(options.input_shapes), self._data.sizes
        self._short = short = shorten(self._model, options.drop, shapes)
        if short is not None and (short.inputs or short.outputs):
            raise UsageError("tune compares on the original's inputs and outputs, some of which go with the branches.")
        left = short.model if short is not None else self._model
        self._channels = analyse(left, shapes, options.heads, options.head_dim, seen=sizes)
        require_weights(self._channels)
        bound = [gates.min_cosine, gates.min_sqnr, gates.min_agreement, gates.max_drop]
        held = judged.sha256 if judged is not None else None
        key = [self._model.sha256, self._data.sha256, held, options.to_dict(), bound]
        self._state = SearchState.read(state, key)
        before = value_of(self._model, evaluate) if evaluate is not None else None
        seen = look(self._channels.view, self._data, runtime)
        activity = seen.activity(self._runtime)
        if options.stats is not None:
            activity = KnownSums.of(options.stats, self._channels.view.model).tell(activity, seen)
        fits = options.cut_unfitted or options.compensate == "none"
        alone = Unfitted() if fits else unfitted(self._channels, seen)
        progress("scoring channels")
        request, self._reasons, notes = prepare(self._channels, options, Clock(), activity, alone.reasons)
        notes += [alone.note] if alone.note else []
        self._warnings = [*suspicions(self._model, self._data, runtime.threads, runtime.provider), *notes]
        self._request = replace(request, scope="sensitivity")
        if not self._state.curves:
            self._state.curves, notes = measured_curves(self._channels, self._request, activity, progress)
            self._state.notes = notes
            self._state.write()
        self._warnings += self._state.notes
        self._measures = {name: MEASURES[name](self._channels, whole_of(short)) for name in ("macs", "params")}
        self._task = SearchTask(self._model, self._data, judged or self._data, options, evaluate, self._runtime, before)
        self._keeps: dict[float, Keep | None] = {}
        self.visited: dict[float, SearchPoint] = {}

    def run(self, step: float, finest: float, workers: int) -> SearchPoint:
        """Walk down, undo what breaks the bound, halve the step."""
        best: SearchPoint | None = None
        place = SearchPlace(1.0, step, finest)
        with Trials(self._task, workers) as trials:
            while not place.is_last:
                if place.share not in self._state.done:
                    self._measure(self._ahead(place, workers), trials)
                candidate = self._state.done[place.share] if self._reachable(place.share) else None
                if candidate is not None:
                    self.visited[candidate.asked] = candidate
                kept = candidate is not None and candidate.kept
                best = candidate if kept else best
                place = place.after(kept)
        if best is None:
            raise NothingToPruneError(self._why_nothing())
        return best

    def build(self, share: float, effort: Effort | None = None) -> PruneResult:
        """Return the model that leaves a share of the MACs; a long effort is spent on it alone, when it is found."""
        keep = self._keep(share) or {}
        reasons, short = self._reasons, self._short
        return build(self._channels, keep, self._task, reasons, self._warnings, effort, self._progress, short)

    def with_latency(self) -> None:
        """Measure the latency of what the search came by, one after the other."""
        for share, candidate in self.visited.items():
            if candidate.latency is None:
                self._progress(f"timing {share:.3g} of the MACs")
                left = latency_share(self._model, self.build(share).model, self._data, self._runtime)
                self.visited[share] = self._state.done[share] = replace(candidate, latency=left)
                self._state.write()

    def _keep(self, share: float) -> Keep | None:
        """Return the masks that leave a share of the MACs, None if that cannot be reached."""
        if share not in self._keeps:
            try:
                measure, table = self._measures["macs"], self._state.curves
                enough = self._short is not None and measure({}) <= share
                self._keeps[share] = (
                    {} if enough else knapsack(self._request, measure, share, "macs", table, self._options.tie_blocks)
                )
            except NothingToPruneError:
                self._keeps[share] = None
        return self._keeps[share]

    def _reachable(self, share: float) -> bool:
        return share > 0 and self._keep(share) is not None

    def _ahead(self, place: SearchPlace, count: int) -> list[float]:
        """Return shares to measure now: the next one, and those that may follow it, the likeliest first."""
        wanted: list[float] = []
        waiting = [place]
        while waiting and len(wanted) < count:
            here = waiting.pop(0)
            if here.is_last:
                continue
            if not self._reachable(here.share):
                waiting.insert(0, here.after(False))
            elif here.share in self._state.done:
                waiting.insert(0, here.after(self._state.done[here.share].kept))
            else:
                wanted += [here.share] if here.share not in wanted else []
                waiting += [here.after(True), here.after(False)]
        return wanted

    def _measure(self, shares: Sequence[float], trials: Trials) -> None:
        """Measure candidates side by side and keep what was found."""
        if not shares:
            return
        self._progress(f"trying {', '.join(f'{share:.3g}' for share in shares)} of the MACs")
        keeps = [self._keep(share) or {} for share in shares]
        for share, keep, found in zip(shares, keeps, trials.measure(keeps), strict=True):
            macs, params = (self._measures[name](keep) for name in ("macs", "params"))
            kept = not self._gates.failures(found.parity, found.drop)
            self._state.done[share] = SearchPoint(share, macs, params, kept, **found.figures())
        self._state.write()

    def _why_nothing(self) -> str:
        if not self.visited:
            return "no step could be taken: the groups allow none so small; allow more (--align 1, fewer --skip)."
        nearest = max(self.visited.values(), key=lambda candidate: candidate.asked)
        shown = ", ".join(
            f"{name} {value:.4g}"
            for name, value in asdict(nearest).items()
            if name in ("cosine", "agreement", "drop") and value is not None
        )
        return (
            f"the bound cannot be kept: with {nearest.macs:.3f} of the MACs left there is {shown}. Nothing was written."
        )


def _beats(one: SearchPoint, other: SearchPoint) -> bool:
    """Tell whether a candidate is as small and as near as another one, and better in something."""
    pairs = [(-one.macs, -other.macs)]
    if one.drop is not None and other.drop is not None:
        pairs.append((-one.drop, -other.drop))
    elif one.cosine is not None and other.cosine is not None:
        pairs.append((one.cosine, other.cosine))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
