"""onnxprune apply: a saved plan again."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen


@click.command()
@options.model
@click.argument("plan_file", type=options.PATH, metavar="PLAN.json")
@options.attention
@options.verify
@options.outputs("output", "no_clobber", "report", "no_provenance")
@options.runs()
@options.gates
@options.screen
def command(
    model: Path,
    plan_file: Path,
    heads: bool | None,
    head_dim: bool | None,
    verify: bool | None,
    outputs: Outputs,
    runs: Runs,
    limits: Limits,
    screen: Screen,
) -> None:
    """Apply a plan that was saved with --plan to the model that it was made for."""
    from onnxprune.channels.analyse import analyse
    from onnxprune.channels.plan import Plan
    from onnxprune.channels.rewrite import rewrite
    from onnxprune.cli import evidence
    from onnxprune.cli.files import read_text
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.cli.groups import pruned
    from onnxprune.errors import UsageError
    from onnxprune.graph.model import load
    from onnxprune.report import Report
    from onnxprune.validate.oracle import masked_model

    ending = Ending(model, "pruned", outputs, runs, limits, verify, {"command": "apply"}, screen, also=(plan_file,))
    ending.check()
    record = Report("apply", details={"seed": runs.seed})
    with screen.stage(record, "load", "reading the model"):
        plan = Plan.from_json(read_text(plan_file, "plan"))
        source = load(model)
        if plan.source_sha256 != source.sha256:
            raise UsageError(
                f"'{plan_file}' was made for another file (sha256 {plan.source_sha256[:12]}.., '{model}' has "
                f"{source.sha256[:12]}..); make a plan for this one with onnxprune prune --plan."
            )
    with screen.stage(record, "analyse", "finding the channels"):
        channels = analyse(source, runs.input_shapes, heads, head_dim)
        keep = channels.keep(plan)
    with screen.stage(record, "rewrite", "cutting"):
        result = rewrite(channels, keep)
    record.groups = pruned(channels, keep)
    record.input, record.output = evidence.describe_pruned(channels, keep)
    evidence.note_limits(record, channels)
    finish(ending, record, source, result, plan, lambda: masked_model(channels, keep))
