"""onnxprune trim: take away what is not needed at the border of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command


def _prepare(given: dict[str, Any], model: Path, outputs: Any) -> dict[str, Any]:
    """Names between commas become several."""
    given["outputs"] = tuple(word for words in given.pop("kept_outputs") for word in words.split(",") if word)
    return {}


command = method_command(
    "trim",
    """Take away classes, tokens, outputs and inputs that nobody needs. What stays gives what it gave.

SPEC: 0-3,7, labels of the axis (person,car), or @FILE with one of these a line.""",
    click.option("--outputs", "kept_outputs", multiple=True, metavar="NAME[,NAME]", help="Keep these outputs only."),
    click.option(
        "--keep",
        multiple=True,
        metavar="OUTPUT[:AXIS]=SPEC",
        help="Keep these positions of an axis: classes, characters; `tokens`: those of --tokens (repeatable).",
    ),
    click.option("--labels", metavar="@FILE", help="Names of the positions [default: those in the metadata]."),
    click.option("--labels-key", metavar="KEY", help="Metadata key with the names [default: names, character, ..]."),
    click.option("--tokens", multiple=True, metavar="INPUT=SPEC", help="Keep these rows of the embedding of INPUT."),
    click.option(
        "--tokens-from", type=options.PATH, metavar="TEXT", help="A text: `--tokens INPUT=text` keeps what it uses."
    ),
    click.option("--tokenizer", type=options.PATH, metavar="FILE", help="The tokenizer.json of the model, to read it."),
    click.option(
        "--rare",
        metavar="int8|int5|nearest|unk=ID",
        default="int8",
        help="What stands for other tokens: a copy in 8 or 5.3 bits, the most similar row, one token [default: int8].",
    ),
    click.option(
        "--scatter",
        multiple=True,
        metavar="OUTPUT[:AXIS]",
        help="Compute scores of --tokens only, and spread them to the old width.",
    ),
    click.option(
        "--fix", multiple=True, metavar="INPUT=VALUE", help="The input is constant: a number or an .npy file."
    ),
    click.option("--dims", multiple=True, metavar="NAME=SIZE", help="A dynamic dimension has this size."),
    click.option("--input-channels", multiple=True, metavar="INPUT:AXIS=SPEC", help="Keep these channels of an input."),
    click.option("--gray", multiple=True, metavar="INPUT", help="One channel instead of three equal ones."),
    click.option("--renumber", is_flag=True, help="Ids count what is left: no tables in the graph."),
    options.verify,
    default="MODEL-trimmed.onnx",
    outputs=("output", "no_clobber", "report", "summary", "plan", "no_provenance", "print_recipe"),
    prepare=_prepare,
)
