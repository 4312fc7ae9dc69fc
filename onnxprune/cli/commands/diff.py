"""onnxprune diff: what changed between two models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand, SectionedOption
from onnxprune.errors import UsageError
from onnxprune.job.outputs import Outputs


@click.command(cls=SectionedCommand)
@click.argument("first", type=options.PATH)
@click.argument("second", type=options.PATH)
@click.option(
    "--plan", type=options.PATH, metavar="FILE", help="Plan of the prune that made the second from the first."
)
@click.option(
    "--model-explorer",
    cls=SectionedOption,
    section=Outputs.section,
    type=options.PATH,
    metavar="FILE",
    help="Write node data for Google's Model Explorer to a .json file.",
)
@click.option(
    "--overlay",
    type=click.Choice(("change", "width", "cost")),
    help="What the node data tell: what became of a node, the share of its width that is left, its multiply-adds "
    "[default: change].",
)
@options.report
@options.screen
@click.pass_context
def command(
    ctx: click.Context,
    first: Path,
    second: Path,
    plan: Path | None,
    model_explorer: Path | None,
    overlay: str | None,
    report: Path | None,
    screen: Screen,
) -> None:
    """Show what changed from one model to another: nodes, attributes, widths, weights, types, metadata, opset.

    Ends with 0 where the models are equal, with 1 where they differ, with 2 where they cannot be compared. Positions
    that tensors lost are exact with --plan, and without it where the second model says that it was made from the first.
    """
    from onnxprune.differences.difference import diff
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.model import load
    from onnxprune.job.group_lines import pruned
    from onnxprune.job.outputs import check_distinct, check_writable
    from onnxprune.job.sides import describe

    if overlay and model_explorer is None:
        raise UsageError("an overlay is of node data: name their file (--model-explorer).")
    reads = [path for path in (first, second, plan) if path is not None]
    weights = [file for model in (first, second) for file in WeightFiles(model)]
    inputs: dict[str, Iterable[Path]] = {"read": reads, "weights of a model": weights}
    check_writable(model_explorer, inputs=inputs)
    check_distinct((report, model_explorer))
    texts: dict[Path | None, str] = {}
    with telling("diff", screen, report, inputs, texts) as record:
        with screen.stage(record, "load", "reading the models"):
            before, after = load(first), load(second)
            record.input, record.output = describe(before), describe(after)
        with screen.stage(record, "diff", "comparing"):
            found = diff(before, after, plan)
            if found.link.channels is not None and found.link.keep:
                lines = pruned(found.link.channels, found.link.keep)
                record.groups = [line for line in lines if not line.locked]
        record.details["diff"] = found.to_json()
        if model_explorer is not None:
            texts[model_explorer] = found.to_model_explorer(overlay or "change")
    ctx.exit(0 if found.is_equal else 1)
