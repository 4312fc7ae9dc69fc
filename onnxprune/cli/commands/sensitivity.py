"""onnxprune sensitivity: what each group costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import started
from onnxprune.cli.screen import Screen

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command()
@options.model
@options.score
@click.option("--skip", multiple=True, metavar="PATTERN", help="Leave nodes, tensors or groups out (repeatable).")
@click.option("--only", multiple=True, metavar="PATTERN", help="Nothing but these (repeatable).")
@options.attention
@options.memory
@click.option("--csv", "table", type=options.PATH, metavar="FILE", help="Write the table to a .csv file.")
@options.report
@options.runs()
@options.screen
def command(
    model: Path,
    data: str | None,
    table: Path | None,
    report: Path | None,
    run: Run,
    screen: Screen,
    **choices: Any,
) -> None:
    """Show what cutting each group alone does to the outputs, on --data.

    Channels go in the order of the score, the readers of a group make up for them. An error of 1 is as large as the
    variance of the outputs.
    """
    from onnxprune.errors import UsageError
    from onnxprune.graph.model import load
    from onnxprune.job.carry_out import check_sources
    from onnxprune.job.job import Job
    from onnxprune.job.outputs import check_distinct, check_report_name, check_writable, report_text, write_texts
    from onnxprune.job.sizes import describe_view
    from onnxprune.job.write import read_by
    from onnxprune.methods.calibration import calibration
    from onnxprune.methods.options import PruneOptions
    from onnxprune.methods.sensitivity import sensitivity
    from onnxprune.report.table import to_csv

    if data is None:
        raise UsageError("sensitivity runs the model on its inputs: give --data.")
    check_report_name(report)
    job = Job((), model, data, run)
    for path in (report, table):
        check_writable(path, inputs=read_by(job))
    check_distinct((report, table))
    check_sources(job)
    wanted = PruneOptions(**choices, input_shapes=run.input_shapes, seed=run.seed, memory=run.memory)
    record = started("sensitivity", seed=run.seed, options=wanted.to_dict())
    record.details["options"].pop("ratio", None)
    with screen.stage(record, "load", "reading the model"):
        source = load(model)
    with screen.stage(record, "sensitivity", "running the model") as tell:
        samples = calibration(source, data, run.samples, run.images)
        found = sensitivity(source, samples, wanted, runtime=run, progress=tell)
    record.input = describe_view(found.channels.view, found.channels.trace)
    for warning in found.warnings:
        record.warn(warning)
    rows = [
        {
            "group": cost.name,
            "kind": cost.kind,
            "size": cost.size,
            "macs_saved_at_half": round(cost.saves, 5),
            **{
                f"error_at_{ratio:g}": float(f"{error:.5g}")
                for ratio, error in zip(found.ratios, cost.errors, strict=True)
            },
        }
        for cost in found.groups
    ]
    record.details["sensitivity"] = rows
    record.details["samples"] = found.samples
    write_texts({table: to_csv(rows), report: report_text(report, record) if report is not None else ""})
    screen.show(record)
