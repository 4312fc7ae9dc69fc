"""What the report of a job tells of its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnxprune.job.describe import describe_result, note_comparison
from onnxprune.job.job import Job, Step
from onnxprune.job.original import Original
from onnxprune.job.outcome import Done, figures_of, masked_figures, model_of, pruned_of
from onnxprune.job.sides import describe, describe_view
from onnxprune.report import Report, Side

if TYPE_CHECKING:
    from onnxprune.evidence.examine import Evidence


@dataclass(eq=False)
class StepNotes:
    """Writes into the report of a job."""

    job: Job
    original: Original
    report: Report

    @property
    def is_run(self) -> bool:
        """Whether it is a recipe, whose steps are told one by one."""
        return self.job.name == "run"

    def evidence(self, done: Done, evidence: Evidence, masked: Evidence, is_last: bool) -> None:
        """Tell what was found out about a step. masked: what says that removing equals zeroing."""
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
            report.warn(self.labelled(done, warning))

    def result(self, step: Step, result: object) -> None:
        """Put the result of the one step of a command into the report."""
        source, report = self.original.source, self.report
        describe_result(report, source, result, self.original.data)
        if report.input is None:
            report.input = describe_view(*self.original.traced)
            after = report.input if step.method.same_work else describe(model_of(result), self.job.run.input_shapes)
            report.output = Side(path=None, params=after.params, macs=after.macs)
        report.output = replace(report.output or report.input, bytes=model_of(result).size_bytes)

    def step(self, done: Done, failures: list[str] | None = None) -> None:
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
        line: dict[str, object] = {"step": done.step.method.name, "options": done.step.options.to_dict()}
        line |= {"params": side.params, "macs": side.macs, "bytes": done.model.size_bytes}
        if done.evidence is not None and done.evidence.masked is not None:
            line["masked_parity"] = masked_figures(done.evidence)
        line |= {"parity": dict(figures_of(done)), "drop": done.drop, "failures": failures or []}
        report.details.setdefault("steps", []).append({**line, "seconds": round(done.seconds, 3)})
        for text in getattr(pruned_of(done.result) or done.result, "warnings", ()):
            report.warn(self.labelled(done, text))

    def title(self, number: int, step: Step) -> str:
        """Return what is being done, while it is."""
        count = len(self.job.steps)
        return f"step {number} of {count}: {step.method.name}" if count > 1 else step.method.title

    def label(self, number: int) -> str:
        """Return how people are told of a step."""
        return f"step {number} ({self.job.steps[number - 1].method.name})"

    def labelled(self, done: Done, text: str) -> str:
        """Return a text with the step that it is about, in a recipe."""
        return f"{self.label(done.number)}: {text}" if self.is_run else text
