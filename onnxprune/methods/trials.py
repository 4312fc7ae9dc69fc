"""Candidates of a search: built and judged here, or side by side in processes of their own, with the same result."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.groups import Keep
from onnxprune.channels.rewrite import rewrite
from onnxprune.compensate.effort import Effort
from onnxprune.errors import ModelError, UsageError
from onnxprune.evidence.evaluation import Evaluate
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.drop import Shortened, shorten
from onnxprune.graph.model import Model, load
from onnxprune.graph.save import save
from onnxprune.methods.candidates import CandidateJudge, Judgement
from onnxprune.methods.depth import border_left, plan_of
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.refit_parts import refit
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.processes import parent
from onnxprune.processes.crew import at_work
from onnxprune.statistics.blas import on_one_thread
from onnxprune.statistics.data import Data
from onnxprune.statistics.sources import FileFunction
from onnxprune.statistics.stored import store


@dataclass(frozen=True, eq=False)
class SearchTask:
    """What all candidates of a search have in common.

    data: what is fitted to. judged: what candidates are judged on.
    before: the user's value of the original.
    """

    model: Model | Path
    data: Data
    judged: Data
    options: PruneOptions
    evaluate: Evaluate | None
    runtime: Runtime
    before: float | None


def build(
    channels: Channels,
    keep: Keep,
    task: SearchTask,
    reasons: Mapping[str, str],
    warnings: Sequence[str],
    effort: Effort | None = None,
    progress: Callable[[str], None] = lambda text: None,
    short: Shortened | None = None,
) -> PruneResult:
    """Return the model that keeps the channels of the masks, refitted; gradient steps would cost minutes each.

    Args:
        effort: a long one takes them all the same. short: the model without branches, and what it was.
    """
    cut, plan, border = rewrite(channels, keep), plan_of(short, channels, keep), border_left(short, channels, keep)
    result = PruneResult(
        cut, plan, channels, keep, dict(reasons), tuple(warnings), uncompensated=cut, border=border, short=short
    )
    steps, mode = task.options.steps, task.options.compensate or ("distil" if effort else "lstsq")
    return refit(result, task.data, mode, task.runtime, steps, progress=progress, effort=effort)


class Bench:
    """Builds and judges candidates in this process."""

    def __init__(self, task: SearchTask) -> None:
        model = task.model if isinstance(task.model, Model) else load(task.model)
        options = task.options
        self._task, self._model = task, model
        shapes, seen = dict(options.input_shapes), task.data.sizes
        self._short = shorten(model, options.drop, shapes)
        left = self._short.model if self._short is not None else model
        self._channels = analyse(left, shapes, options.heads, options.head_dim, seen=seen)
        self._judge = CandidateJudge(model, task.judged, task.evaluate, task.runtime, task.before)

    def measure(self, keep: Keep) -> Judgement:
        """Return how near the candidate of the masks is to the original."""
        result = build(self._channels, keep, self._task, {}, (), short=self._short)
        with scratch_folder() as folder:
            path = Path(folder) / "candidate.onnx"
            save(result.model, path, source=self._model)
            return self._judge(path)


class Trials:
    """Measures several candidates at once.

    Used as a context: at its end, also by an interruption, no process is left.
    """

    def __init__(self, task: SearchTask, workers: int) -> None:
        self._task, self.workers = task, workers
        self._bench: Bench | None = None
        self._pool: ProcessPoolExecutor | None = None
        self._folder = scratch_folder()
        self._others = set(multiprocessing.active_children())

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - self._others:
                process.kill()  # they leave SIGTERM to this process
                process.join()
        self._folder.cleanup()

    def measure(self, keeps: Sequence[Keep]) -> list[Judgement]:
        """Return how near each candidate is to the original.

        Raises:
            DataError: the user's function raises or returns no number.
            ModelError: a process died.
        """
        crew = at_work()
        if crew is not None:
            task = self._task
            if isinstance(task.evaluate, FileFunction):
                task = replace(task, evaluate=FileFunction(task.evaluate.path.resolve(), task.evaluate.name))
            return list(crew.map(_measure_kit, _BenchKit(task), keeps, lambda number: f"candidate {number + 1}"))
        if self.workers == 1:
            self._bench = self._bench or Bench(self._task)
            return [self._bench.measure(keep) for keep in keeps]
        with parent.undisturbed():
            self._pool = self._pool or self._start()
            waiting = [self._pool.submit(_measure, keep) for keep in keeps]
        try:
            return [future.result() for future in waiting]
        except BrokenProcessPool as error:
            raise ModelError(
                "a process of --workers died: perhaps memory ran out (give fewer --workers), or a script that calls "
                "tune lacks its 'if __name__ == \"__main__\":'."
            ) from error

    def _start(self) -> ProcessPoolExecutor:
        """Start the processes; what they need goes through files, so that large models and data are not sent."""
        folder, task = Path(self._folder.name), self._task
        model = task.model
        if isinstance(model, Model):
            path = model.path if model.path is not None and model.path.is_file() and not model.pending else None
            if path is None:
                path = folder / "original.onnx"
                save(model, path)
            model = path.resolve()
        held = folder / "judged"
        held.mkdir()
        data, judged = store(task.data, folder), store(task.judged, held)
        shared = SearchTask(model, data, judged, task.options, task.evaluate, task.runtime, task.before)
        try:
            content = pickle.dumps(shared)
        except Exception as error:
            raise UsageError(
                f"the evaluation function cannot be sent to other processes ({error}); define it at the top of a file "
                "that they can import, or use one worker."
            ) from error
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, spawn, parent.begin, (os.getpid(), content))


@dataclass(frozen=True, eq=False)
class _BenchKit:
    """What a bench is made of, as it travels."""

    task: SearchTask

    @cached_property
    def bench(self) -> Bench:
        """The bench."""
        return Bench(self.task)


@on_one_thread
def _measure_kit(kit: _BenchKit, keep: Keep) -> Judgement:
    return kit.bench.measure(keep)


_bench: Bench | None = None


@on_one_thread
def _measure(keep: Keep) -> Judgement:
    """Measure in a process of the pool; what is wrong with the task is raised here, where the parent hears of it."""
    global _bench
    _bench = _bench or Bench(pickle.loads(parent.task))
    return _bench.measure(keep)
