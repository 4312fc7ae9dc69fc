"""Carry out a job: step after step, each result looked at against the original, and handed to the next step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import DataError, GateError, OnnxpruneError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.files.staging import Staging
from onnxprune.graph.model import Model, load
from onnxprune.graph.save import save
from onnxprune.job.describe import describe_result, note_comparison, note_mended
from onnxprune.job.gates import Gates, kept
from onnxprune.job.job import Job, Step
from onnxprune.job.latency_check import note_latency
from onnxprune.job.original import NO_IMAGES, Original, traced
from onnxprune.job.outcome import Done, begun, figures_of, masked_figures, model_of, note_error, note_verdict, pruned_of
from onnxprune.job.sides import describe, describe_view
from onnxprune.job.trim_law import examine_trim
from onnxprune.processes import memory
from onnxprune.report import Report, Side
from onnxprune.statistics.image_options import ImageOptions

if TYPE_CHECKING:
    from onnxprune.channels.plan import Plan
    from onnxprune.evidence.compare import Reference
    from onnxprune.evidence.examine import Evidence
    from onnxprune.evidence.masked import MaskedOriginal
    from onnxprune.methods.result import PruneResult

MASKED_SAMPLES = 8
"""Masked parity is a law, which a few samples show."""

Progress = Callable[[str], None]
Stage = Callable[[Report, str, str], AbstractContextManager[Progress]]
"""Measures a stage of the work, by its name in the report and a text for people; what is yielded changes the text."""
Check = Callable[[Path | Model], None]
Deliver = Callable[[Model, Model, Check], None]
"""Writes (result, original, check): the check raises where the result must not get its name."""


@dataclass(frozen=True, eq=False)
class JobResult:
    """What a job gave.

    model: of the last step.
    steps: what was done. Files of steps are gone: the models are in memory.
    plan: of the prune, if there was exactly one.
    """

    model: Model
    steps: tuple[Done, ...]
    report: Report
    plan: Plan | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What there is to say."""
        return tuple(self.report.warnings)


@contextmanager
def unseen(report: Report, name: str, text: str) -> Iterator[Progress]:
    """Measure a stage that nobody watches."""
    with report.stage(name):
        yield lambda text: None


def told(progress: Progress | None) -> Stage:
    """Return stages that tell a function what is being done."""

    @contextmanager
    def stage(report: Report, name: str, text: str) -> Iterator[Progress]:
        with report.stage(name):
            (progress or (lambda text: None))(text)
            yield progress or (lambda text: None)

    return stage


def carry_out(job: Job, *, stage: Stage = unseen, deliver: Deliver | None = None) -> JobResult:
    """Carry out a job.

    Args:
        stage: shows what is being done.
        deliver: writes the last model, and calls the check on its file; None: the model stays in memory.

    Raises:
        GateError: a limit is not kept; `last_good` is the model of the step before, if there is one.
        OnnxpruneError: what the steps raise; a step that is not what the model before it is with the removed channels
            zeroed is our defect. `report` of the error is what was found out until then.
    """
    report = begun(job)
    try:
        check_sources(job)
        memory.allow(given=job.run.memory)
        with stage(report, "load", "reading the model"):
            source = load(_required(job.model))
            note_mended(report, source)
        with scratch_folder() as folder:
            reads_all = any(step.method.all_data for step in job.steps)
            original = Original(source, job.data, job.run, job.gates, Path(folder), reads_all=reads_all)
            with closing(original):
                if job.gates.eval is not None:
                    with stage(report, "evaluate", "evaluating the original"):
                        report.details["evaluation"] = {"before": original.value}
                try:
                    return _Work(job, original, report, stage, deliver).run()
                finally:
                    if job.outputs.intermediates is not None:
                        keep_files(Path(folder), job.outputs.intermediates)
    except OnnxpruneError as error:
        note_error(report, error)
        raise


def check_sources(job: Job) -> None:
    """Look, before any work, whether the files of the data and of the user's function are there.

    Raises:
        DataError: one is not, or the function does not load.
    """
    for option, data in (("--data", job.data), ("--judge-data", job.gates.judge_data)):
        if isinstance(data, str | Path):
            file, colon, _ = str(data).rpartition(":")
            if not Path(data).exists() and not (colon and Path(file).is_file()):
                raise DataError(f"{option} '{data}' does not exist; give .npz, .npy, a folder, or file.py:function.")
    if job.data is None and job.gates.judge_data is None and job.run.images != ImageOptions():
        raise UsageError(NO_IMAGES)
    job.gates.function()


@dataclass(eq=False)
class _Work:
    """A job on its way."""

    job: Job
    original: Original
    report: Report
    stage: Stage
    deliver: Deliver | None

    def __post_init__(self) -> None:
        self.done: list[Done] = []
        self.is_run = self.job.name == "run"

    def run(self) -> JobResult:
        model = self.original.source
        for number, step in enumerate(self.job.steps, 1):
            try:
                self.done.append(self._carry_out(number, step, model))
            except GateError as error:
                self._failed(error, number, model)
                raise
            last = self.done[-1]
            if number < len(self.job.steps):
                model = load(self._file(last))
        if self.deliver is None and last.model.external_bytes and len(self.done) > 1:
            raise UsageError("weights in external files: run this recipe on the command line, which writes its result.")
        return JobResult(last.model, tuple(self.done), self.report, plan_of(self.done))

    def _carry_out(self, number: int, step: Step, model: Model) -> Done:
        job, start, gates = self.job, time.perf_counter(), self._gates(step)
        is_last = number == len(job.steps)
        with self.stage(self.report, step.method.name, self._title(number, step)) as tell:
            result = step.method.run(model, step.options, self.original, gates, tell)
            if not self.is_run:
                self._describe(step, result)
        made = model_of(result)
        mode: str = getattr(result, "mode", "")
        if job.measure_latency and mode:
            with self.stage(self.report, "latency", "measuring"):
                note_latency(self.report, self.original.source, made, mode, job, getattr(result, "timings", None))
        done = Done(number, step, result, replace(made, origin=(self.original.source.sha256, self._settings(number))))
        found: list[Done] = []

        def check(compressed: Path | Model) -> None:
            with self.stage(self.report, "validate", "comparing with the original"):
                found.append(self._judged(done, model, compressed, gates, is_last))

        if not is_last or job.outputs.intermediates is not None:
            save(made, self._file(done), source=model)
        seconds = self.report.seconds
        before = seconds.get("validate", 0.0)
        with self.stage(self.report, "save", "writing"):
            if is_last and self.deliver is not None:
                self.deliver(done.model, self.original.source, check)
            else:
                check(made if is_last else self._file(done))
        seconds["save"] -= seconds.get("validate", 0.0) - before
        done = replace(found[0], seconds=time.perf_counter() - start)
        self._note_step(done)
        return done

    def _judged(self, done: Done, before: Model, compressed: Path | Model, gates: Gates, is_last: bool) -> Done:
        """Return the step with what was found out about its result.

        Raises:
            GateError: a limit is not kept.
        """
        masked = self._masked(done, before, compressed) if done.number > 1 else None
        evidence = masked
        if done.number == 1 or is_last or gates.needs_outputs:
            evidence = self._examined(done, before, compressed, gates.needs_outputs)
            if masked is not None:
                evidence = replace(evidence, masked=masked.masked, warnings=(*masked.warnings, *evidence.warnings))
        if evidence is not None:
            self._note_evidence(done, evidence, masked or evidence, is_last)
        drop = None
        if gates.eval is not None and (is_last or gates.max_drop is not None):
            after = self.original.evaluated(compressed)
            drop = self.original.value - after
            self.report.details["evaluation"] = {"before": self.original.value, "after": after, "drop": drop}
        done = replace(done, comparison=evidence.comparison if evidence else None, drop=drop, evidence=evidence)
        parity = done.comparison.parity if done.comparison else {}
        failures = gates.failures(parity, drop)
        self.report.details["gates"] = kept(gates, parity, drop)
        if is_last or failures:
            failures += note_verdict(self.report, self.job, self.original, done, gates, failures)
        if failures:
            self._note_step(done, failures)
            raise GateError(f"{'; '.join(text.rstrip('.') for text in failures)}. Nothing was written.")
        return done

    def _examined(self, done: Done, before: Model, compressed: Path | Model, required: bool) -> Evidence:
        """Compare with the original; a first step also with what it removed zeroed."""
        if hasattr(done.result, "prepared"):
            return examine_trim(self.original, done.result, compressed, required)
        pruned = pruned_of(done.result) if done.number == 1 else None
        if pruned is not None:
            self.original.traced = pruned.view, pruned.trace
        original = self.original
        return self._examine(original.source, compressed, lambda: original.reference, original.close, pruned, required)

    def _masked(self, done: Done, before: Model, compressed: Path | Model) -> Evidence | None:
        """Check a later step that removed channels against the model before it with these channels zeroed."""
        pruned, run = pruned_of(done.result), self.job.run
        if pruned is None or not pruned.removes or run.verify is False:
            return None
        samples = min(MASKED_SAMPLES, run.samples or MASKED_SAMPLES)
        opened: list[Reference] = []

        def reference() -> Reference:
            opened.append(self.original.opened(before, traced(before, run), samples))
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

        def masked(pruned: PruneResult) -> MaskedOriginal:
            from onnxprune.evidence.dropped import masked_original

            return masked_original(pruned.channels, pruned.keep, pruned.short)

        run = self.job.run
        return examine(
            before,
            compressed,
            reference,
            close,
            None if pruned is None else partial(masked, pruned),
            verify=run.verify,
            required=required,
            own_data=self.original.judged is not None,
            threads=run.threads,
            provider=run.provider,
            left=pruned.channels.view if pruned is not None else None,
            uncompensated=pruned.uncompensated if pruned is not None and pruned.compensation is not None else None,
        )

    def _note_evidence(self, done: Done, evidence: Evidence, masked: Evidence, is_last: bool) -> None:
        report, law = self.report, masked.lines[-1:] if masked.masked is not None else ()
        if is_last and evidence.comparison is not None:
            note_comparison(report, evidence.comparison)
        lines = [line for line in evidence.lines if line not in law] if is_last else []
        laws = [f"Step {done.number}: {line}" for line in law] if self.is_run else list(law)
        told = [*laws, *lines] if self.is_run else [*lines, *laws]
        report.details["verdicts"] = [*report.details.get("verdicts", ()), *told]
        if masked.masked is not None and not self.is_run:
            report.details["masked_parity"] = masked_figures(masked)
        for warning in evidence.warnings:
            report.warn(self._labelled(done, warning))

    def _describe(self, step: Step, result: Any) -> None:
        """Put the result of the one step of a command into the report."""
        source, report = self.original.source, self.report
        describe_result(report, source, result, self.original.data)
        if report.input is None:
            report.input = describe_view(*self.original.traced)
            after = report.input if step.method.same_work else describe(model_of(result), self.job.run.input_shapes)
            report.output = Side(path=None, params=after.params, macs=after.macs)
        report.output = replace(report.output or report.input, bytes=model_of(result).size_bytes)

    def _note_step(self, done: Done, failures: list[str] | None = None) -> None:
        """Put a step of a recipe into the report, and what its model is made of."""
        if not self.is_run:
            return
        report, shapes = self.report, dict(getattr(done.step.options, "input_shapes", {}))
        if report.input is None:
            report.input = describe(self.original.source, shapes)
        before = report.output or report.input
        side = before if done.step.method.name == "quantize" else describe(done.model, shapes)
        if not failures:
            report.output = Side(path=None, params=side.params, macs=side.macs, bytes=done.model.size_bytes)
        line: dict[str, Any] = {"step": done.step.method.name, "options": done.step.options.to_dict()}
        line |= {"params": side.params, "macs": side.macs, "bytes": done.model.size_bytes}
        if done.evidence is not None and done.evidence.masked is not None:
            line["masked_parity"] = masked_figures(done.evidence)
        line |= {"parity": dict(figures_of(done)), "drop": done.drop, "failures": failures or []}
        report.details.setdefault("steps", []).append({**line, "seconds": round(done.seconds, 3)})
        for text in getattr(pruned_of(done.result) or done.result, "warnings", ()):
            report.warn(self._labelled(done, text))

    def _failed(self, error: GateError, number: int, model: Model) -> None:
        """Say which step failed and, where that is asked for, write the model before it."""
        outcome, text = "Nothing was written.", str(error).removesuffix("Nothing was written.").rstrip()
        error.last_good = model if number > 1 else None
        if self.deliver is not None and self.job.outputs.keep_last_good and number > 1:
            origin = (self.original.source.sha256, self._settings(number - 1))
            self.deliver(replace(model, origin=origin), self.original.source, lambda file: None)
            outcome = f"The model of {self._label(number - 1)} was written to '{self.job.target()}'."
        label = f"{self._label(number)}: " if self.is_run else ""
        error.args = (f"{label}{text} {outcome}",)

    def _gates(self, step: Step) -> Gates:
        limits: dict[str, Any] = dict(step.limits)
        return replace(self.job.gates, **limits)

    def _settings(self, count: int) -> Mapping[str, Any]:
        return replace(self.job, steps=self.job.steps[:count]).settings

    def _file(self, done: Done) -> Path:
        return self.original.folder / f"{done.number}-{done.step.method.name}.onnx"

    def _title(self, number: int, step: Step) -> str:
        count = len(self.job.steps)
        return f"step {number} of {count}: {step.method.name}" if count > 1 else step.method.title

    def _label(self, number: int) -> str:
        return f"step {number} ({self.job.steps[number - 1].method.name})"

    def _labelled(self, done: Done, text: str) -> str:
        return f"{self._label(done.number)}: {text}" if self.is_run else text


def keep_files(folder: Path, target: Path) -> None:
    """Copy the models after every step to a folder, with the data files that belong to them."""
    target.mkdir(parents=True, exist_ok=True)
    with Staging() as staging:
        for path in sorted(folder.glob("[0-9]*")):
            shutil.copyfile(path, staging.add(target / path.name))
        staging.commit()


def plan_of(done: list[Done]) -> Plan | None:
    """Return the plan of the one step that has one."""
    results = [getattr(item.result, "result", item.result) for item in done]
    plans = [result.plan for result in results if hasattr(result, "plan")]
    return plans[0] if len(plans) == 1 else None


def _required(model: Any) -> Any:
    if model is None:
        raise UsageError("the recipe names no model; give one (--model FILE).")
    return model
