"""onnxprune factorize: layers of low rank, each written as a chain of smaller ones."""

from __future__ import annotations

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command

SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


command = method_command(
    "factorize",
    """Replace layers by low-rank factors where that saves parameters and multiply-adds.

Give at most one target out of --params, --macs and --energy.""",
    click.option("--params", type=SHARE, metavar="R", help="Share of the parameters that is left [default: 0.5]."),
    click.option("--macs", type=SHARE, metavar="R", help="Share of the multiply-adds that is left."),
    click.option("--energy", type=SHARE, metavar="E", help="Share of what each layer gives that its factors keep."),
    click.option(
        "--align",
        type=click.IntRange(min=1),
        metavar="N",
        help="Ranks are multiples of N [default: 8 from rank 64, 4 from 32].",
    ),
    click.option(
        "--whiten/--no-whiten",
        default=None,
        help="Nearest on the inputs of --data, or as matrices [default: with --data].",
    ),
    click.option(
        "--refit/--no-refit", default=None, help="Fit last factors to what the original gave [default: with --data]."
    ),
    options.effort,
    options.layers("Leave nodes or tensors alone", "Factorize"),
    default="MODEL-factorized.onnx",
)
