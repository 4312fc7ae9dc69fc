"""onnxprune explain: why the channels of one group stay or go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand

if TYPE_CHECKING:
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@options.model
@click.argument("group")
@click.option("--ratio", type=float, metavar="R", help="Share of the channels removed in every group [default: 0.4].")
@click.option("--score", metavar="NAME", default="l2", help="A criterion that looks at weights [default: l2].")
@options.report
@options.runs("seed", "input_shapes")
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
    from onnxprune.job.sides import describe_view
    from onnxprune.methods.explain import explain
    from onnxprune.methods.prune_options import PruneOptions

    reads: dict[str, Iterable[Path]] = {"the model": [model], "weights of the model": WeightFiles(model)}
    with telling("explain", screen, report, reads, seed=run.seed) as record:
        with screen.stage(record, "load", "reading the model"):
            loaded = load(model)
        with screen.stage(record, "explain", "looking at the group"):
            channels = analyse(loaded, dict(run.input_shapes))
            found = explain(channels, group, PruneOptions(ratio=ratio, score=score, seed=run.seed))
            record.input = describe_view(channels.view, channels.trace)
        record.details["explain"] = found.to_json()
        for warning in found.warnings:
            record.warn(warning)
