"""onnxprune prune: remove channels everywhere it can, write a smaller model, and show that nothing else changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command

LEFT = click.FloatRange(0, 1, min_open=True)


def _prepare(given: dict[str, Any], model: Path, outputs: Any) -> dict[str, Any]:
    from onnxprune.allocate import read_ratios

    file = given.pop("group_ratios")
    given["ratios"] = read_ratios(file) if file else {}
    return {}


command = method_command(
    "prune",
    """Remove channels and show that nothing else changed. What stays is refitted to --data, else to made-up inputs.

Give at most one target out of --ratio, --macs, --params, --size and --latency.""",
    click.option(
        "--ratio", type=float, metavar="R", help="Share of the channels removed in every group [default: 0.4]."
    ),
    click.option("--macs", type=LEFT, metavar="R", help="Share of the multiply-adds that is left."),
    click.option("--params", type=LEFT, metavar="R", help="Share of the parameters that is left."),
    click.option("--size", type=LEFT, metavar="R", help="Share of the bytes of the file that is left."),
    click.option(
        "--latency", type=LEFT, metavar="R", help="Share of the time of one sample that is left, as measured here."
    ),
    options.score,
    click.option(
        "--scope",
        type=click.Choice(["uniform", "global", "sensitivity"]),
        help="All groups lose the same share, one threshold decides for all, or errors measured on --data against what "
        "a width saves [default: sensitivity for a target with --data, else uniform].",
    ),
    click.option("--tie-blocks", is_flag=True, help="Groups of the same shape keep the same number (sensitivity)."),
    click.option(
        "--align",
        type=click.IntRange(min=1),
        metavar="N",
        help="Keep multiples of N channels [default: 8 in groups of 32 or more, 16 from 128]; 1 turns it off.",
    ),
    click.option(
        "--min-channels", type=click.IntRange(min=1), default=1, metavar="N", help="Least that a group keeps."
    ),
    click.option("--group-ratios", type=options.PATH, metavar="FILE", help="JSON table of name patterns and ratios."),
    click.option("--skip", multiple=True, metavar="PATTERN", help="Leave nodes, tensors or groups alone (repeatable)."),
    click.option("--only", multiple=True, metavar="PATTERN", help="Prune nothing but these (repeatable)."),
    click.option(
        "--drop",
        multiple=True,
        metavar="BRANCH",
        help="Residual branches that go, by the names that inspect lists (repeatable); without a target, nothing else.",
    ),
    click.option(
        "--depth/--no-depth",
        default=None,
        help="With --data and a target: branches go as well as widths, where that loses less [default: no].",
    ),
    click.option("--exact-only", is_flag=True, help="Prune only where removing equals zeroing (no LayerNorm over it)."),
    options.unfitted,
    options.resizing,
    options.attention,
    options.compensation,
    options.memory,
    options.verify,
    default="MODEL-pruned.onnx",
    outputs=("output", "no_clobber", "report", "summary", "plan", "no_provenance", "print_recipe"),
    prepare=_prepare,
)
