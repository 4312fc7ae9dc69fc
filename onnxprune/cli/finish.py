"""The end of every command that writes a model: examined, gated, written, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import evidence, recipes
from onnxprune.cli.files import check_distinct, check_report_name, check_writable, write_report, write_text
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen
from onnxprune.report import Report
from onnxprune.validate.gates import Gates

if TYPE_CHECKING:
    from onnxprune.channels.plan import Plan
    from onnxprune.graph.model import Model
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View


SIMILAR = 0.95
"""Cosine with the original below which the user is told that a model may have lost its skill."""


@dataclass(frozen=True)
class Ending:
    """Everything that was asked for about the result.

    suffix: what the default name of the output gets: "pruned" gives `<stem>-pruned.onnx` beside the input.
    settings: what goes into the provenance, without paths.
    also: further files that are read, and so never replaced.
    verify: see `onnxprune.validate.examine.examine`.
    """

    source: Path
    suffix: str
    outputs: Outputs
    runs: Runs
    limits: Limits
    verify: bool | None
    settings: Mapping[str, Any]
    screen: Screen
    also: tuple[Path, ...] = ()

    @property
    def target(self) -> Path:
        """The file to write."""
        return self.outputs.output or self.source.with_name(f"{self.source.stem}-{self.suffix}.onnx")

    def check(self) -> Gates:
        """Look for everything that can be wrong with the options before any work; return the gates.

        Raises:
            UsageError: options that contradict each other.
            OutputError: an output that cannot be written.
        """
        files = (self.target, self.outputs.report, self.outputs.plan)
        check_report_name(self.outputs.report)
        for path in files:
            check_writable(path, inputs=(self.source, *self.also), clobber=not self.outputs.no_clobber)
        check_distinct(files)
        evidence.check_sources(self.runs, self.limits)
        gates = evidence.gates_of(self.limits)
        if self.outputs.print_recipe:
            click.echo(recipes.written(self), nl=False)
            raise click.exceptions.Exit(0)
        return gates


def finish(
    ending: Ending,
    report: Report,
    source: Model,
    result: Model,
    plan: Plan | None,
    make_masked: Callable[[], Model] | None = None,
    traced: tuple[View, Trace] | None = None,
    uncompensated: Model | None = None,
) -> None:
    """Examine the result on a temporary file, give it its name, write plan and report, and show the report.

    Args:
        plan: written where --plan asks for it; None where the command has none.
        make_masked: makes the original with the removed slices zeroed, for masked parity.
        traced: the source as it was read and traced, if it was.
        uncompensated: the result before what stays was refitted, if it was: masked parity is a law of that one.

    Raises:
        GateError: a quality gate failed; nothing was written.
        OutputError: something cannot be written.
    """
    from onnxprune.graph.model import save
    from onnxprune.graph.provenance import with_provenance

    gates = evidence.gates_of(ending.limits)
    if not ending.outputs.no_provenance:
        changed = with_provenance(result.proto, source.sha256, ending.settings)
        result = replace(result, proto=changed, file_bytes=None)

    def check(temporary: Path) -> None:
        with ending.screen.stage(report, "validate", "comparing with the original"):
            _examine(ending, report, gates, source, temporary, make_masked, traced, uncompensated)

    if (recipe := recipes.recipe_of(ending)) is not None:
        report.details["recipe"] = recipes.plain(recipe)
    with ending.screen.stage(report, "save", "writing"):
        clobber = not ending.outputs.no_clobber
        save(result, ending.target, clobber=clobber, inputs=ending.also, check=check, source=source)
    report.seconds["save"] -= report.seconds.get("validate", 0.0)
    _describe_output(ending, report, result)
    report.details["next"] = _next_steps(ending, report)
    if ending.outputs.plan is not None and plan is not None:
        write_text(ending.outputs.plan, plan.to_json())
    write_report(ending.outputs.report, report)
    ending.screen.show(report)


def _examine(
    ending: Ending,
    report: Report,
    gates: Gates,
    source: Model,
    temporary: Path,
    make_masked: Callable[[], Model] | None,
    traced: tuple[View, Trace] | None,
    uncompensated: Model | None,
) -> None:
    from onnxprune.validate.examine import examine

    runs = ending.runs
    found = examine(
        source,
        temporary,
        lambda: evidence.reference(source, runs, traced),
        make_masked,
        verify=ending.verify,
        required=gates.needs_outputs,
        own_data=runs.data is not None,
        threads=runs.threads,
        provider=runs.provider,
        uncompensated=uncompensated,
    )
    if found.comparison is not None:
        evidence.note_comparison(report, found.comparison)
    if found.masked is not None:
        report.details["masked_parity"] = {
            "relative_error": evidence.finite(found.masked.errors),
            "tolerance": found.masked.tolerance,
        }
    for warning in found.warnings:
        report.warn(warning)
    report.details["verdicts"] = [*report.details.get("verdicts", ()), *found.lines]
    drop = evidence.measure_drop(report, ending.limits, ending.source, temporary)
    evidence.check_gates(gates, found.comparison, drop, "Nothing was written.")


def _describe_output(ending: Ending, report: Report, result: Model) -> None:
    """Fill in what is known about the output only once it is written."""
    from onnxprune.graph.model import file_sha256

    if report.output is None:
        return
    wanted = ending.screen.json or ending.outputs.report is not None
    report.output = replace(
        report.output,
        path=str(ending.target),
        bytes=ending.target.stat().st_size + result.external_bytes,
        sha256=file_sha256(ending.target) if wanted else None,
    )


def _next_steps(ending: Ending, report: Report) -> list[str]:
    """Return what to do about the questions that this run cannot answer."""
    steps = []
    cosines = [figures["cosine"] or 0.0 for figures in report.parity.values() if figures]
    if cosines and min(cosines) < SIMILAR:
        steps.append(f"The outputs differ much (cosine {min(cosines):.2f}): remove less, or train the result a little.")
    steps += [f"Faster? onnxprune bench {quote(str(ending.source))} {quote(str(ending.target))}"]
    if report.parity and ending.runs.data is None:
        steps.append("Random inputs show defects, not accuracy: --data runs inputs of yours, --eval measures.")
    return steps
