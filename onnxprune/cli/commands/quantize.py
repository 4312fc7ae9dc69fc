"""onnxprune quantize: fewer bits for weights and activations, with what it costs and whether it is faster here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import method_command
from onnxprune.methods.quantization.modes.table import MODES

INTEGERS = click.Choice(["u8", "s8"])


def _words(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split at commas what may also be repeated."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _prepare(given: dict[str, Any], model: Path, outputs: Any) -> dict[str, Any]:
    given["bits"] = int(given["bits"]) if given["bits"] else None
    return {"measure_latency": given.pop("latency")}


command = method_command(
    "quantize",
    """Store and compute in fewer bits.

With a quality gate, the layers that cost most stay in float until the gate holds.""",
    click.option(
        "--mode",
        type=click.Choice(list(MODES)),
        help="Kind of quantization [default: static with --data, dynamic without or for recurrent networks].",
    ),
    click.option("--bits", type=click.Choice(["4", "8"]), help="Bits of the weights [default: 8, weight-only: 4]."),
    click.option(
        "--calibration",
        type=click.Choice(["minmax", "entropy", "percentile"]),
        default="minmax",
        help="How ranges follow from the data, static mode [default: minmax].",
    ),
    click.option(
        "--percentile",
        type=float,
        default=99.99,
        metavar="P",
        help="Values inside a range, in percent [default: 99.99].",
    ),
    click.option("--activation-type", type=INTEGERS, help="Integers of activations [default: u8 on x86, else s8]."),
    click.option("--weight-type", type=INTEGERS, help="Integers of weights [default: s8]."),
    click.option(
        "--per-channel/--per-tensor", default=True, help="A scale for each output channel [default: per channel]."
    ),
    click.option("--symmetric/--asymmetric", default=None, help="Ranges of activations [default: symmetric for s8]."),
    click.option(
        "--block-size", type=int, default=32, metavar="N", help="Weights that share a scale, weight-only [default: 32]."
    ),
    click.option(
        "--format",
        type=click.Choice(["qdq", "qoperator"]),
        default="qdq",
        help="qoperator: onnxruntime's integer operators, a smaller file, static mode [default: qdq].",
    ),
    click.option("--smooth", is_flag=True, help="Move outliers of activations into weights behind norms, with --data."),
    click.option("--equalize", is_flag=True, help="Make channels between layers equally wide first, static mode."),
    click.option(
        "--correct-bias", is_flag=True, help="Take the mean error of each layer out of its bias, static mode."
    ),
    click.option(
        "--guard/--no-guard",
        default=True,
        help="Layers stay float until held-out samples agree, static mode [default: do].",
    ),
    click.option(
        "--measure/--no-measure",
        default=None,
        help="Parts that are slower in 8 bits here stay float, static mode [default: do, unless CI is set].",
    ),
    click.option(
        "--rounding",
        type=click.Choice(["nearest", "gptq"]),
        help="Of weights, static and weight-only [default: gptq; static: where nearest is not enough].",
    ),
    click.option(
        "--keep-io-types/--convert-io-types",
        default=True,
        help="Inputs and outputs stay float32 in fp16 [default: keep].",
    ),
    click.option(
        "--op-block-list", multiple=True, callback=_words, metavar="OPS", help="Operators that stay float: Softmax,Add."
    ),
    options.layers("Keep nodes float", "Quantize"),
    click.option("--latency/--no-latency", default=True, help="Measure the result against the original [default: do]."),
    click.option(
        "--verify/--no-verify", default=None, help="Compare the outputs with the original's [default: do, up to 1 GB]."
    ),
    click.option("--pass-through", is_flag=True, help="Write a model that is quantized already as it is."),
    default="MODEL-int8.onnx, -int4, -fp16, -bf16",
    prepare=_prepare,
)
