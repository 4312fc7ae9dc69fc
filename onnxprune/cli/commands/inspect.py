"""onnxprune inspect: what can be pruned, and why the rest is locked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.hardware.target import target_named
from onnxprune.methods.candidate_options import CandidateOptions
from onnxprune.methods.compensate_options import CompensateOptions

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@options.model
@options.given_from("seen", CompensateOptions, "heads", "head_dim")
@options.report
@options.given_from("number", CandidateOptions, "precision")
@options.runs("input_shapes", "target", without=())
@options.screen
def command(
    model: Path,
    seen: dict[str, bool],
    number: dict[str, str],
    report: Path | None,
    run: Run,
    screen: Screen,
) -> None:
    """Show operators, inputs and outputs, the groups of channels, why the rest is locked, and the residual branches.

    A group is named after the first node that writes it; its MACs are those of the nodes that it runs through. One that
    is not active overlaps with one that is (heads with the positions inside them); --heads and --head-dim choose.

    With --target it also tells how well the layers fit what the model will run on: what is padding, what runs
    elsewhere, what waits for memory.
    """
    from onnxprune.channels.analyse import analyse
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.model import load
    from onnxprune.graph.view import View
    from onnxprune.job.branch_lines import branch_lines
    from onnxprune.job.describe import note_limits, note_mended
    from onnxprune.job.footprint import footprint
    from onnxprune.job.group_lines import inspected
    from onnxprune.job.model_facts import model_facts
    from onnxprune.job.sides import describe_view
    from onnxprune.job.target_lines import target_lines

    target = target_named(run.target) if run.target is not None else None
    reads: dict[str, Iterable[Path]] = {"the model": [model], "weights of the model": WeightFiles(model)}
    with telling("inspect", screen, report, reads) as record:
        with screen.stage(record, "load", "reading the model"):
            loaded = load(model)
        with screen.stage(record, "analyse", "finding the channels"):
            channels = analyse(loaded, dict(run.input_shapes), seen.get("heads"), seen.get("head_dim"))
            record.groups = inspected(channels)
            record.details["branches"] = branch_lines(channels.view, channels.trace)
            record.details["model_facts"] = model_facts(View(loaded))
            record.input = describe_view(channels.view, channels.trace)
            if taken := footprint(loaded, dict(run.input_shapes)):
                record.details["footprint"] = {"before": taken}
            if target is not None:
                precision = number.get("precision")
                record.details["target_fit"] = target_lines(channels.view, channels.trace, target, precision)
        note_mended(record, loaded)
        note_limits(record, channels)
