"""onnxprune explain: why the channels of one group stay or go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import started
from onnxprune.cli.screen import Screen

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command()
@options.model
@click.argument("group")
@click.option("--ratio", type=float, metavar="R", help="Share of the channels removed in every group [default: 0.4].")
@click.option("--score", metavar="NAME", default="l2", help="A criterion that looks at weights [default: l2].")
@options.report
@options.runs("seed", "input_shape")
@options.screen
def command(
    model: Path, group: str, ratio: float | None, score: str, report: Path | None, run: Run, screen: Screen
) -> None:
    """Show what was asked of one group, the score of every channel, its nearest twin, and who reads it most.

    GROUP is a name that inspect lists, or a part of it that no other group has. Scores are those of the weights; what a
    prune on --data chooses can differ.
    """
    from onnxprune.channels.analyse import analyse
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.model import load
    from onnxprune.job.outputs import check_report_name, check_writable, write_report
    from onnxprune.job.sizes import describe_view
    from onnxprune.methods.explain import explain
    from onnxprune.methods.options import PruneOptions

    check_report_name(report)
    check_writable(report, inputs={"the model": [model], "weights of the model": WeightFiles(model)})
    record = started("explain", seed=run.seed)
    with screen.stage(record, "load", "reading the model"):
        loaded = load(model)
    with screen.stage(record, "explain", "looking at the group"):
        channels = analyse(loaded, dict(run.input_shapes))
        found = explain(channels, group, PruneOptions(ratio=ratio, score=score, seed=run.seed))
        record.input = describe_view(channels.view, channels.trace)
    sites = [{"tensor": site.tensor, "axis": site.axis, "role": site.role} for site in found.group.sites]
    record.details["explain"] = {
        "group": found.group.name,
        "kind": found.group.kind,
        "size": found.group.size,
        "exact": found.group.exact,
        "asked": found.asked,
        "reason": found.reason,
        "sites": sites,
        "locks": [asdict(lock) for lock in found.locks],
        "channels": [asdict(line) for line in found.channels],
    }
    for warning in found.warnings:
        record.warn(warning)
    write_report(report, record)
    screen.show(record)
