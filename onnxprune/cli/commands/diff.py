"""onnxprune diff: what changed between two models."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand


@click.command(cls=SectionedCommand)
@click.argument("first", type=options.PATH)
@click.argument("second", type=options.PATH)
@click.option(
    "--plan", type=options.PATH, metavar="FILE", help="Plan of the prune that made the second from the first."
)
@options.report
@options.screen
@click.pass_context
def command(
    ctx: click.Context, first: Path, second: Path, plan: Path | None, report: Path | None, screen: Screen
) -> None:
    """Show what changed from one model to another: nodes, attributes, widths, weights, types, metadata, opset.

    Ends with 0 where the models are equal, with 1 where they differ, with 2 where they cannot be compared. Positions
    that tensors lost are exact with --plan, and after a prune without a refit (--compensate none) without it.
    """
    from onnxprune.differences.difference import diff
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.model import load
    from onnxprune.job.group_lines import pruned
    from onnxprune.job.sides import describe

    reads = [path for path in (first, second, plan) if path is not None]
    weights = [file for model in (first, second) for file in WeightFiles(model)]
    with telling("diff", screen, report, {"read": reads, "weights of a model": weights}) as record:
        with screen.stage(record, "load", "reading the models"):
            before, after = load(first), load(second)
            record.input, record.output = describe(before), describe(after)
        with screen.stage(record, "diff", "comparing"):
            found = diff(before, after, plan)
            if found.link.channels is not None and found.link.keep:
                lines = pruned(found.link.channels, found.link.keep)
                record.groups = [line for line in lines if not line.locked]
        record.details["diff"] = found.to_json()
    ctx.exit(0 if found.is_equal else 1)
