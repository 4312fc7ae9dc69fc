"""onnxprune tune: the smallest model that keeps a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen

STEP = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@options.model
@options.score
@click.option("--align", type=click.IntRange(min=1), metavar="N", help="Keep multiples of N channels.")
@click.option("--min-channels", type=click.IntRange(min=1), default=1, metavar="N", help="Least that a group keeps.")
@click.option("--skip", multiple=True, metavar="PATTERN", help="Leave nodes, tensors or groups alone (repeatable).")
@click.option("--only", multiple=True, metavar="PATTERN", help="Prune nothing but these (repeatable).")
@click.option("--exact-only", is_flag=True, help="Prune only where removing equals zeroing.")
@click.option("--tie-blocks", is_flag=True, help="Groups of the same shape keep the same number.")
@click.option("--step", type=STEP, default=0.1, metavar="R", help="First step, as a share of the MACs [default: 0.1].")
@click.option("--finest", type=STEP, default=0.02, metavar="R", help="Last step, halved down to [default: 0.02].")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, metavar="N", help="Processes that measure candidates ahead."
)
@click.option("--latency", is_flag=True, help="Measure the latency of every candidate too.")
@click.option("--state", type=options.PATH, metavar="FILE", help="Keeps the search [default: OUTPUT.tune.json].")
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
    step: float,
    finest: float,
    workers: int,
    latency: bool,
    state: Path | None,
    verify: bool | None,
    outputs: Outputs,
    runs: Runs,
    limits: Limits,
    screen: Screen,
    **choices: Any,
) -> None:
    """Search the smallest model that keeps a bound, on --data.

    The bound is --max-drop with --eval, --min-cosine, --min-agreement or --min-sqnr. Interrupted, the same command goes
    on where it was.
    """
    from onnxprune.cli import evidence
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.cli.groups import pruned
    from onnxprune.errors import UsageError
    from onnxprune.graph.model import load
    from onnxprune.methods.calibration import Runtime
    from onnxprune.methods.options import PruneOptions
    from onnxprune.methods.tune import tune
    from onnxprune.report import Report
    from onnxprune.validate.oracle import masked_model

    if runs.data is None:
        raise UsageError("tune measures on inputs of the model: give --data.")
    wanted = PruneOptions(**choices, input_shapes=runs.input_shapes, seed=runs.seed)
    settings = {"command": "tune", **{k: v for k, v in wanted.to_dict().items() if k != "ratio"}}
    ending = Ending(model, "tuned", outputs, runs, limits, verify, settings, screen)
    gates = ending.check()
    state = state or ending.target.with_name(f"{ending.target.name}.tune.json")
    record = Report("tune", details={"seed": runs.seed, "options": settings})
    with screen.stage(record, "load", "reading the model"):
        source = load(model)
    with screen.stage(record, "tune", "measuring groups") as tell:
        data = evidence.samples_of(source, runs)
        try:
            found = tune(
                source,
                data,
                gates,
                wanted,
                evaluate=evidence.evaluator(limits.eval) if limits.eval is not None else None,
                step=step,
                finest=finest,
                state=state,
                workers=workers,
                latency=latency,
                runtime=Runtime(runs.threads, runs.provider),
                progress=tell,
            )
        except KeyboardInterrupt:
            if state.is_file():
                click.echo(f"what was measured is kept in '{state}'; the same command goes on from there.", err=True)
            raise
    result, best = found.result, found.pareto()
    channels, keep = result.channels, result.keep
    record.details["curve"] = [
        {name: getattr(point, name) for name in point.__dataclass_fields__} | {"pareto": point in best}
        for point in found.curve
    ]
    record.groups = pruned(channels, keep, result.reasons)
    record.input, record.output = evidence.describe_pruned(channels, keep)
    for warning in result.warnings:
        record.warn(warning)
    evidence.note_limits(record, channels)
    evidence.note_compensation(record, result, data)
    traced = (channels.view, channels.trace)
    cut = result.uncompensated if result.compensation is not None else None
    finish(ending, record, source, result.model, result.plan, lambda: masked_model(channels, keep), traced, cut)
