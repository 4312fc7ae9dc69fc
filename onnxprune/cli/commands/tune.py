"""onnxprune tune: the smallest model that keeps a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command

STEP = click.FloatRange(0, 1, min_open=True, max_open=True)


def _prepare(given: dict[str, Any], model: Path, outputs: Any) -> dict[str, Any]:
    from onnxprune.graph.source_file import stem

    target = outputs.output or model.with_name(f"{stem(model)}-tuned.onnx")
    given["measure_latency"] = given.pop("latency")
    given["state"] = given["state"] or target.with_name(f"{target.name}.tune.json")
    return {}


command = method_command(
    "tune",
    """Search the smallest model that keeps a bound, on --data.

The bound is --max-drop with --eval, --min-cosine, --min-agreement or --min-sqnr. Interrupted, the same command goes
on where it was.""",
    options.score,
    click.option("--align", type=click.IntRange(min=1), metavar="N", help="Keep multiples of N channels."),
    click.option(
        "--min-channels", type=click.IntRange(min=1), default=1, metavar="N", help="Least that a group keeps."
    ),
    click.option("--skip", multiple=True, metavar="PATTERN", help="Leave nodes, tensors or groups alone (repeatable)."),
    click.option("--only", multiple=True, metavar="PATTERN", help="Prune nothing but these (repeatable)."),
    click.option("--exact-only", is_flag=True, help="Prune only where removing equals zeroing."),
    click.option("--tie-blocks", is_flag=True, help="Groups of the same shape keep the same number."),
    click.option(
        "--step", type=STEP, default=0.1, metavar="R", help="First step, as a share of the MACs [default: 0.1]."
    ),
    click.option("--finest", type=STEP, default=0.02, metavar="R", help="Last step, halved down to [default: 0.02]."),
    click.option(
        "--workers", type=click.IntRange(min=1), default=1, metavar="N", help="Processes that measure candidates ahead."
    ),
    click.option("--latency", is_flag=True, help="Measure the latency of every candidate too."),
    click.option("--state", type=options.PATH, metavar="FILE", help="Keeps the search [default: OUTPUT.tune.json]."),
    options.unfitted,
    options.attention,
    options.compensation,
    options.memory,
    options.verify,
    default="MODEL-tuned.onnx",
    outputs=("output", "no_clobber", "report", "summary", "plan", "no_provenance", "print_recipe"),
    prepare=_prepare,
)
