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
@click.option("--force", is_flag=True, help="Apply it to another file too, where the tensors are the same.")
@options.attention
@options.compensation
@options.verify
@options.outputs("output", "no_clobber", "report", "no_provenance")
@options.runs()
@options.gates
@options.screen
def command(
    model: Path,
    plan_file: Path,
    force: bool,
    heads: bool | None,
    head_dim: bool | None,
    compensate: str | None,
    steps: int | None,
    verify: bool | None,
    outputs: Outputs,
    runs: Runs,
    limits: Limits,
    screen: Screen,
) -> None:
    """Apply a plan that was saved with --plan to the model that it was made for."""
    from onnxprune.channels.plan import Plan
    from onnxprune.cli import evidence
    from onnxprune.cli.files import read_text
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.cli.groups import pruned
    from onnxprune.graph.model import load
    from onnxprune.methods.apply import apply
    from onnxprune.methods.calibration import Runtime
    from onnxprune.report import Report
    from onnxprune.validate.oracle import masked_model

    given = {"compensate": compensate, "steps": steps}
    settings = {"command": "apply", **{name: value for name, value in given.items() if value}}
    ending = Ending(model, "pruned", outputs, runs, limits, verify, settings, screen, also=(plan_file,))
    ending.check()
    record = Report("apply", details={"seed": runs.seed})
    plan = Plan.from_json(read_text(plan_file, "plan"))
    with screen.stage(record, "load", "reading the model"):
        source = load(model)
    with screen.stage(record, "apply", "removing channels") as tell:
        data = evidence.samples_of(source, runs)
        result = apply(
            source,
            plan,
            force=force,
            input_shapes=runs.input_shapes,
            heads=heads,
            head_dim=head_dim,
            data=data,
            compensate=compensate,
            steps=steps,
            runtime=Runtime(runs.threads, runs.provider),
            progress=tell,
        )
    channels, keep = result.channels, result.keep
    record.groups = pruned(channels, keep)
    record.input, record.output = evidence.describe_pruned(channels, keep)
    evidence.note_limits(record, channels)
    evidence.note_compensation(record, result, data)
    for warning in result.warnings:
        record.warn(warning)
    traced = (channels.view, channels.trace)
    cut = result.uncompensated if result.compensation is not None else None
    finish(ending, record, source, result.model, plan, lambda: masked_model(channels, keep), traced, cut)
