"""onnxprune finetune: bring a compressed model nearer to its original by gradient steps."""

from __future__ import annotations

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command

command = method_command(
    "finetune",
    """Bring a COMPRESSED model nearer to the original MODEL by gradient steps on --data, without labels or with them.

Any model whose tensors correspond to the original's: pruned, trimmed, factorized, sparse (zeros stay zero).""",
    click.argument("compressed", type=options.PATH),
    click.option(
        "--effort",
        metavar="default|thorough|TIME",
        help="600 steps, as long as held-out samples get better, or a time (90s, 30m, 2h) [default: default].",
    ),
    click.option("--steps", type=click.IntRange(min=1), metavar="N", help="So many gradient steps instead."),
    click.option(
        "--state",
        type=options.PATH,
        metavar="FILE",
        help="Keeps how far it is: after an interruption the same command goes on; removed at the end.",
    ),
    click.option("--labels", metavar="FILE", help="What is right, too: .npy, .npz:KEY, or .csv with one a line."),
    click.option(
        "--criterion",
        type=click.Choice(["cross-entropy", "mse", "bce"]),
        help="How labels are compared [default: cross-entropy for whole numbers, else mse].",
    ),
    click.option(
        "--label-weight", type=float, default=1.0, metavar="X", help="Of that loss, beside the distance [default: 1]."
    ),
    click.option("--label-output", metavar="NAME", help="The output that labels are for, where there are several."),
    click.option(
        "--loss", type=options.PATH, metavar="FILE.ONNX", help="A loss as a graph: of outputs by name, and labels."
    ),
    click.option(
        "--augment",
        default="auto",
        metavar="auto|none|flip,shift",
        help="Variations of images [default: auto, those that the original bears].",
    ),
    click.option(
        "--rate",
        type=float,
        default=0.01,
        metavar="X",
        help="Of the largest step, against the weights [default: 0.01].",
    ),
    default="COMPRESSED-finetuned.onnx",
)
