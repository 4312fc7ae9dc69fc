"""onnxprune sparsify: zeros in weights, with the others changed to make up for them."""

from __future__ import annotations

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command

command = method_command(
    "sparsify",
    """Make single weights zero: smaller after compression, faster on hardware with sparse units only.""",
    click.option(
        "--sparsity",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="S",
        help="Share of the weights that become zero [default: 0.5].",
    ),
    click.option(
        "--pattern", metavar="N:M|block:RxC", help="2:4: of 4 inputs 2 stay; block:4x1: 4 outputs of 1 input."
    ),
    click.option(
        "--scope",
        type=click.Choice(["uniform", "global", "lamp", "erk"]),
        default="uniform",
        help="How zeros are spread over the layers: the same share, one threshold, or LAMP, ERK [default: uniform].",
    ),
    click.option(
        "--score",
        type=click.Choice(["obc", "wanda", "magnitude", "random"]),
        help="Which weights go: by what can be made up for (obc), by |w| times the input, by |w|, by chance "
        "[default: obc with --data, else magnitude].",
    ),
    click.option(
        "--reconstruct/--no-reconstruct",
        default=None,
        help="Change the other weights to make up for the zeros [default: with --data].",
    ),
    click.option(
        "--storage",
        type=click.Choice(["dense", "sparse"]),
        default="dense",
        help="Write a usual file, or sparse_initializer where that is smaller [default: dense].",
    ),
    options.effort,
    options.layers("Leave nodes or tensors alone", "Sparsify"),
    default="MODEL-sparse.onnx",
)
