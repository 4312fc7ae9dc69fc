"""onnxprune sensitivity: what each group costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.job.run import THERE
from onnxprune.methods.candidate_options import CandidateOptions

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@options.model
@options.given_from("choices", CandidateOptions, "score", "stats", "skip", "only", "heads", "head_dim")
@click.option("--csv", "table", type=options.PATH, metavar="FILE", help="Write the table to a .csv file.")
@options.report
@options.runs(without=("verify", "target", *THERE))
@options.screen
def command(
    model: Path,
    data: str | None,
    table: Path | None,
    report: Path | None,
    run: Run,
    screen: Screen,
    choices: dict[str, Any],
) -> None:
    """Show what cutting each group alone does to the outputs, on --data.

    Channels go in the order of the score, the readers of a group make up for them. An error of 1 is as large as the
    variance of the outputs.
    """
    from onnxprune.cluster.hiring import hired
    from onnxprune.errors import UsageError
    from onnxprune.graph.model import load
    from onnxprune.job.job import Job
    from onnxprune.job.outputs import check_distinct, check_writable
    from onnxprune.job.sides import describe_view
    from onnxprune.job.sources_check import check_sources
    from onnxprune.job.write import read_by
    from onnxprune.methods.calibration import calibration
    from onnxprune.methods.prune_options import PruneOptions
    from onnxprune.methods.sensitivity import sensitivity
    from onnxprune.report.csv_rows import to_csv

    if data is None:
        raise UsageError("sensitivity runs the model on its inputs: give --data.")
    job = Job((), model, data, run)
    check_writable(table, inputs=read_by(job))
    check_distinct((report, table))
    wanted = PruneOptions(**choices, input_shapes=run.input_shapes, seed=run.seed, memory=run.memory)
    texts: dict[Path | None, str] = {}
    said = {name: value for name, value in wanted.to_dict().items() if name != "ratio"}
    with telling("sensitivity", screen, report, read_by(job), texts, seed=run.seed, options=said) as record:
        check_sources(job)
        with screen.stage(record, "load", "reading the model"):
            source = load(model)
        with screen.stage(record, "sensitivity", "running the model") as tell, hired(run.cluster):
            samples = calibration(source, data, run.samples, run.images)
            found = sensitivity(source, samples, wanted, runtime=run, progress=tell)
        record.input = describe_view(found.channels.view, found.channels.trace)
        for warning in found.warnings:
            record.warn(warning)
        rows = found.rows()
        record.details["sensitivity"] = rows
        record.details["samples"] = found.samples
        if table is not None:
            texts[table] = to_csv(rows)
