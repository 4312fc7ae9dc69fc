"""onnxprune prune: remove channels everywhere it can, write a smaller model, and show that nothing else changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen

LEFT = click.FloatRange(0, 1, min_open=True)


@click.command()
@options.model
@click.option("--ratio", type=float, metavar="R", help="Share of the channels removed in every group [default: 0.4].")
@click.option("--macs", type=LEFT, metavar="R", help="Share of the multiply-adds that is left.")
@click.option("--params", type=LEFT, metavar="R", help="Share of the parameters that is left.")
@click.option("--size", type=LEFT, metavar="R", help="Share of the bytes of the file that is left.")
@click.option(
    "--latency", type=LEFT, metavar="R", help="Share of the time of one sample that is left, as measured here."
)
@options.score
@click.option(
    "--scope",
    type=click.Choice(["uniform", "global", "sensitivity"]),
    help="All groups lose the same share, one threshold decides for all, or errors measured on --data against what a "
    "width saves [default: sensitivity for a target with --data, else uniform].",
)
@click.option("--tie-blocks", is_flag=True, help="Groups of the same shape keep the same number (sensitivity).")
@click.option(
    "--align",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep multiples of N channels [default: 8 in groups of 32 or more, 16 from 128]; 1 turns it off.",
)
@click.option("--min-channels", type=click.IntRange(min=1), default=1, metavar="N", help="Least that a group keeps.")
@click.option("--group-ratios", type=options.PATH, metavar="FILE", help="JSON table of name patterns and ratios.")
@click.option("--skip", multiple=True, metavar="PATTERN", help="Leave nodes, tensors or groups alone (repeatable).")
@click.option("--only", multiple=True, metavar="PATTERN", help="Prune nothing but these (repeatable).")
@click.option("--exact-only", is_flag=True, help="Prune only where removing equals zeroing (no LayerNorm over it).")
@options.unfitted
@options.attention
@options.compensation
@options.memory
@options.verify
@options.outputs()
@options.runs()
@options.gates
@options.screen
def command(
    model: Path,
    group_ratios: Path | None,
    verify: bool | None,
    outputs: Outputs,
    runs: Runs,
    limits: Limits,
    screen: Screen,
    **choices: Any,
) -> None:
    """Remove channels and show that nothing else changed. What stays is refitted to --data, else to made-up inputs.

    Give at most one target out of --ratio, --macs, --params, --size and --latency.
    """
    from onnxprune.allocate import read_ratios
    from onnxprune.cli import evidence
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.cli.groups import pruned
    from onnxprune.graph.model import load
    from onnxprune.methods.calibration import Runtime
    from onnxprune.methods.options import PruneOptions
    from onnxprune.methods.prune import prune
    from onnxprune.report import Report
    from onnxprune.validate.oracle import masked_model

    ratios = read_ratios(group_ratios) if group_ratios else {}
    wanted = PruneOptions(**choices, ratios=ratios, input_shapes=runs.input_shapes, seed=runs.seed)
    settings = {"command": "prune", **wanted.to_dict()}
    ending = Ending(model, "pruned", outputs, runs, limits, verify, settings, screen)
    ending.check()
    record = Report("prune", details={"seed": runs.seed, "options": settings})
    with screen.stage(record, "load", "reading the model"):
        source = load(model)
    with screen.stage(record, "prune", "choosing and removing channels") as tell:
        data = evidence.samples_of(source, runs)
        runtime = Runtime(runs.threads, runs.provider)
        result = prune(source, wanted, data, synthetic=True, runtime=runtime, progress=tell)
    channels, keep = result.channels, result.keep
    record.groups = pruned(channels, keep, result.reasons)
    record.input, record.output = evidence.describe_pruned(channels, keep)
    for warning in result.warnings:
        record.warn(warning)
    evidence.note_limits(record, channels)
    evidence.note_latency(record, result)
    evidence.note_compensation(record, result, data)
    traced = (channels.view, channels.trace)
    cut = result.uncompensated if result.compensation is not None else None
    finish(ending, record, source, result.model, result.plan, lambda: masked_model(channels, keep), traced, cut)
