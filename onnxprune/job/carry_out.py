"""Carry out a job: step after step, each result looked at against the original, and handed to the next step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.cluster.hiring import hired
from onnxprune.differences.recorded import recorded
from onnxprune.errors import GateError, OnnxpruneError, UsageError
from onnxprune.files.scratch import scratch_folder
from onnxprune.files.staging import Staging
from onnxprune.graph.model import Model, load
from onnxprune.graph.save import save
from onnxprune.job.describe import note_mended
from onnxprune.job.examiner import Examiner
from onnxprune.job.gates import Gates, kept
from onnxprune.job.job import Job, Step
from onnxprune.job.latency_check import note_latency
from onnxprune.job.original import Original
from onnxprune.job.outcome import Done, begun, model_of, note_error, note_verdict
from onnxprune.job.sources_check import check_sources
from onnxprune.job.step_notes import StepNotes
from onnxprune.job.watching import Deliver, Stage, unseen
from onnxprune.processes import memory
from onnxprune.report import Report
from onnxprune.statistics.kept_sums import read_sums
from onnxprune.types import Array

if TYPE_CHECKING:
    from onnxprune.channels.plan import Plan


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
            reads_all = any(step.reads_all for step in job.steps)
            original = Original(source, job.data, job.run, job.gates, Path(folder), reads_all=reads_all)
            original.met = _met(job, report)
            shares = any(step.method.shares for step in job.steps)
            with closing(original), hired(job.run.cluster if shares else None):
                if job.gates.eval is not None:
                    with stage(report, "evaluate", "evaluating the original"):
                        report.details["evaluation"] = {"before": original.value}
                try:
                    return _JobWork(job, original, report, stage, deliver).run()
                finally:
                    if (data := original.provenance()) is not None:
                        report.details["data"] = {**data, **_selected(job)}
                    if job.outputs.intermediates is not None:
                        keep_files(Path(folder), job.outputs.intermediates)
    except OnnxpruneError as error:
        note_error(report, error)
        raise


def _selected(job: Job) -> dict[str, int]:
    """Return how many samples steps chose among those that they may fit to, as JSON data."""
    asked = [step.options.select for step in job.steps if getattr(step.options, "select", None) is not None]
    return {"selected": min(asked)} if asked else {}


@dataclass(eq=False)
class _JobWork:
    """A job on its way."""

    job: Job
    original: Original
    report: Report
    stage: Stage
    deliver: Deliver | None

    def __post_init__(self) -> None:
        self.done: list[Done] = []
        self.records: list[dict[str, object]] = []
        self.notes = StepNotes(self.job, self.original, self.report)
        self.examiner = Examiner(self.original, self.job.run)

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
        with self.stage(self.report, step.method.name, self.notes.title(number, step)) as tell:
            result = step.method.run(model, step.options, self.original, gates, tell)
            if not self.notes.is_run:
                self.notes.result(step, result)
        made = model_of(result)
        hides = getattr(step.options, "randomize", None) is not None
        self.records.append({} if hides else recorded(getattr(getattr(result, "result", result), "plan", None)))
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
        self.notes.step(done)
        return done

    def _judged(self, done: Done, before: Model, compressed: Path | Model, gates: Gates, is_last: bool) -> Done:
        """Return the step with what was found out about its result.

        Raises:
            GateError: a limit is not kept.
        """
        masked = self.examiner.masked(done, before, compressed) if done.number > 1 else None
        evidence = masked
        if done.number == 1 or is_last or gates.needs_outputs:
            evidence = self.examiner.examined(done, compressed, gates.needs_outputs)
            if masked is not None:
                evidence = replace(evidence, masked=masked.masked, warnings=(*masked.warnings, *evidence.warnings))
        if evidence is not None:
            self.notes.evidence(done, evidence, masked or evidence, is_last)
            if is_last:
                self._note_footprint(done)
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
            self.notes.step(done, failures)
            raise GateError(f"{'; '.join(text.rstrip('.') for text in failures)}. Nothing was written.")
        return done

    def _note_footprint(self, done: Done) -> None:
        """Tell what the result takes besides its file, where that is counted in a moment."""
        from onnxprune.job.footprint import footprints

        found = footprints(self.original.source, done.model, self.job.run.input_shapes)
        if found is not None:
            self.report.details["footprint"] = found

    def _failed(self, error: GateError, number: int, model: Model) -> None:
        """Say which step failed and, where that is asked for, write the model before it."""
        outcome, text = "Nothing was written.", str(error).removesuffix("Nothing was written.").rstrip()
        error.last_good = model if number > 1 else None
        if self.deliver is not None and self.job.outputs.keep_last_good and number > 1:
            origin = (self.original.source.sha256, self._settings(number - 1))
            self.deliver(replace(model, origin=origin), self.original.source, lambda file: None)
            outcome = f"The model of {self.notes.label(number - 1)} was written to '{self.job.target()}'."
        label = f"{self.notes.label(number)}: " if self.notes.is_run else ""
        error.args = (f"{label}{text} {outcome}",)

    def _gates(self, step: Step) -> Gates:
        limits: dict[str, Any] = dict(step.limits)
        return replace(self.job.gates, **limits)

    def _settings(self, count: int) -> Mapping[str, object]:
        """Return what the first steps were asked for, and what went where that tells it."""
        steps = zip(self.job.steps[:count], self.records, strict=False)
        done = [{**step.settings, **record} for step, record in steps]
        return done[0] if len(done) == 1 else {"command": "run", "steps": done}

    def _file(self, done: Done) -> Path:
        return self.original.folder / f"{done.number}-{done.step.method.name}.onnx"


def keep_files(folder: Path, target: Path) -> None:
    """Copy the models after every step to a folder, with the data files that belong to them."""
    target.mkdir(parents=True, exist_ok=True)
    with Staging() as staging:
        for path in sorted(folder.glob("[0-9]*")):
            shutil.copyfile(path, staging.add(target / path.name))
        staging.commit()


def _met(job: Job, report: Report) -> Array | None:
    """Return marks of the samples that statistics of the steps were collected of, and note what these are."""
    given = [stats for step in job.steps if (stats := getattr(step.options, "stats", None)) is not None]
    if not given:
        return None
    found = [read_sums(stats) for stats in given]
    report.details["statistics"] = [kept.facts() for kept in found]
    return np.concatenate([kept.marks for kept in found])


def plan_of(done: list[Done]) -> Plan | None:
    """Return the plan of the one step that has one."""
    results = [getattr(item.result, "result", item.result) for item in done]
    plans = [result.plan for result in results if hasattr(result, "plan")]
    return plans[0] if len(plans) == 1 else None


def _required(model: object) -> object:
    if model is None:
        raise UsageError("the recipe names no model; give one (--model FILE).")
    return model
