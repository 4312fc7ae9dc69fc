"""onnxprune quantize: fewer bits for weights and activations, with what it costs and whether it is faster here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Outputs, Runs
from onnxprune.cli.screen import Screen

INTEGERS = click.Choice(["u8", "s8"])


def _words(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split at commas what may also be repeated."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


@click.command()
@options.model
@click.option(
    "--mode",
    type=click.Choice(["dynamic", "static", "weight-only", "fp16", "bf16"]),
    help="Kind of quantization [default: static with --data, dynamic without or for recurrent networks].",
)
@click.option("--bits", type=click.Choice(["4", "8"]), help="Bits of the weights [default: 8, weight-only: 4].")
@click.option(
    "--calibration",
    type=click.Choice(["minmax", "entropy", "percentile"]),
    default="minmax",
    help="How ranges follow from the data, static mode [default: minmax].",
)
@click.option(
    "--percentile", type=float, default=99.99, metavar="P", help="Values inside a range, in percent [default: 99.99]."
)
@click.option("--activation-type", type=INTEGERS, help="Integers of activations [default: u8 on x86, else s8].")
@click.option("--weight-type", type=INTEGERS, help="Integers of weights [default: s8].")
@click.option(
    "--per-channel/--per-tensor", default=True, help="A scale for each output channel [default: per channel]."
)
@click.option("--symmetric/--asymmetric", default=None, help="Ranges of activations [default: symmetric for s8].")
@click.option(
    "--block-size", type=int, default=32, metavar="N", help="Weights that share a scale, weight-only [default: 32]."
)
@click.option(
    "--format",
    type=click.Choice(["qdq", "qoperator"]),
    default="qdq",
    help="qoperator: onnxruntime's integer operators, a smaller file, static mode [default: qdq].",
)
@click.option("--smooth", is_flag=True, help="Move outliers of activations into weights behind norms, with --data.")
@click.option("--equalize", is_flag=True, help="Make channels between layers equally wide first, static mode.")
@click.option("--correct-bias", is_flag=True, help="Take the mean error of each layer out of its bias, static mode.")
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "gptq"]),
    help="Of weights, static and weight-only [default: gptq with --data, static: up to 4 M weights; else nearest].",
)
@click.option(
    "--keep-io-types/--convert-io-types", default=True, help="Inputs and outputs stay float32 in fp16 [default: keep]."
)
@click.option(
    "--op-block-list", multiple=True, callback=_words, metavar="OPS", help="Operators that stay float: Softmax,Add."
)
@options.layers("Keep nodes float", "Quantize")
@click.option("--latency/--no-latency", default=True, help="Measure the result against the original [default: do].")
@click.option(
    "--verify/--no-verify", default=None, help="Compare the outputs with the original's [default: do, up to 1 GB]."
)
@click.option("--pass-through", is_flag=True, help="Write a model that is quantized already as it is.")
@options.outputs("output", "no_clobber", "report", "no_provenance")
@options.runs()
@options.gates
@options.screen
def command(
    model: Path,
    bits: str | None,
    latency: bool,
    verify: bool | None,
    pass_through: bool,
    outputs: Outputs,
    runs: Runs,
    limits: Limits,
    screen: Screen,
    **choices: Any,
) -> None:
    """Store and compute in fewer bits.

    With a quality gate, the layers that cost most stay in float until the gate holds.
    """
    from onnxprune.cli import evidence, quantizing
    from onnxprune.cli.finish import Ending, finish
    from onnxprune.methods.quantization.options import QuantizeOptions, suffix
    from onnxprune.methods.quantization.recognise import quantized_as
    from onnxprune.methods.quantize import quantize
    from onnxprune.report import Report

    wanted = QuantizeOptions(
        **choices, bits=int(bits) if bits else None, input_shapes=runs.input_shapes, seed=runs.seed
    )
    settings = {"command": "quantize", **wanted.to_dict()}
    ending = Ending(model, suffix(wanted, wanted.mode or "dynamic"), outputs, runs, limits, verify, settings, screen)
    gates = ending.check()
    record = Report("quantize", details={"seed": runs.seed, "options": settings})
    source, traced = evidence.read(record, screen, model, runs)
    record.output = evidence.same_work(record.input)
    how = quantized_as(source.proto)
    if how is not None and pass_through:
        record.warn(f"the model is quantized already (it has {how}); it is passed through as it is")
        finish(ending, record, source, source, None, traced=traced)
        return
    with screen.stage(record, "quantize", "quantizing"):
        feeds, judge = quantizing.samples(record, source, traced, wanted, runs, limits, gates)
        result = quantize(source, wanted, feeds=feeds, judge=judge, threads=runs.threads, synthetic=runs.data is None)
    quantizing.note(record, result)
    if latency:
        with screen.stage(record, "latency", "measuring"):
            quantizing.measure(record, source, result, ending.target, runs)
    finish(ending, record, source, result.model, None, traced=traced)
