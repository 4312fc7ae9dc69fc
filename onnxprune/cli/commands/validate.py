"""onnxprune validate: outputs of a compressed model against the original."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from onnxprune.cli import options
from onnxprune.cli.options import Limits, Runs
from onnxprune.cli.screen import Screen
from onnxprune.errors import GateError


@click.command()
@click.argument("original", type=options.PATH)
@click.argument("compressed", type=options.PATH)
@click.option("--report", type=options.PATH, metavar="FILE", help="Write the report to a .json or .html file.")
@click.option("--layers", is_flag=True, help="Compare layer by layer as well, where both models have the layer.")
@click.option("--layer-sqnr", type=float, metavar="DB", help="Name the first layer below it and fail (with --layers).")
@click.option(
    "--tolerance",
    type=options.Tolerance(),
    multiple=True,
    help="Largest difference that an output may have: logits:1e-3, or 1e-3 for all (repeatable).",
)
@click.option(
    "--strict/--no-strict",
    default=None,
    help="Fail unless the verdict is good or nothing could be judged (default where the variable CI is set).",
)
@options.runs()
@options.gates
@options.screen
def command(
    original: Path,
    compressed: Path,
    report: Path | None,
    layers: bool,
    layer_sqnr: float | None,
    tolerance: tuple[tuple[str, float], ...],
    strict: bool | None,
    runs: Runs,
    limits: Limits,
    screen: Screen,
) -> None:
    """Compare the outputs of two models.

    Without --data the inputs are random: they show a defect, they do not measure accuracy.
    """
    from onnxprune.cli import comparing, evidence
    from onnxprune.cli.files import check_report_name, check_writable, write_report
    from onnxprune.graph.model import load
    from onnxprune.report import Report
    from onnxprune.validate.compare import compare, self_noise
    from onnxprune.validate.session import open_session

    check_report_name(report)
    check_writable(report, inputs=(original, compressed))
    evidence.check_sources(runs, limits)
    gates = evidence.gates_of(limits)
    record = Report("validate", details={"seed": runs.seed})
    with screen.stage(record, "load", "reading the models"):
        before, after = load(original), load(compressed)
        record.input = evidence.describe(before, runs.input_shapes)
        record.output = evidence.describe(after, runs.input_shapes)
    with screen.stage(record, "validate", "running both models"):
        source = evidence.reference(before, runs)
        with open_session(compressed, threads=runs.threads, provider=runs.provider) as session:
            comparison = compare(source, session)
        noise = self_noise(source, threads=runs.threads, provider=runs.provider)
    evidence.note_comparison(record, comparison)
    evidence.note_noise(record, noise)
    verdict = replace(comparison, noise=noise.results()).verdict
    record.details["verdict"] = verdict.to_json()
    below = None
    if layers or layer_sqnr is not None:
        with screen.stage(record, "layers", "comparing the layers"):
            below = comparing.note_layers(record, (before, after), source.samples, layer_sqnr, runs)
    drop = None
    if limits.eval is not None:
        with screen.stage(record, "evaluate", "evaluating both models"):
            drop = evidence.measure_drop(record, limits, original, compressed)
    write_report(report, record)
    screen.show(record)
    comparing.check(below, comparing.beyond(comparison, tolerance), layer_sqnr)
    evidence.check_gates(gates, comparison, drop, "The models are as they were.")
    if verdict.status in ("poor", "failed") and (strict if strict is not None else bool(os.environ.get("CI"))):
        raise GateError(f"{verdict.sentence} The models are as they were.")
