"""onnxprune validate: outputs of a compressed model against the original."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options, words
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.errors import GateError, UsageError

if TYPE_CHECKING:
    from onnxprune.job.gates import Gates
    from onnxprune.job.run import Run


@click.command(cls=SectionedCommand)
@click.argument("original", type=options.PATH)
@click.argument("compressed", type=options.PATH)
@options.report
@click.option("--layers", is_flag=True, help="Compare layer by layer as well, where both models have the layer.")
@click.option(
    "--robust", is_flag=True, help="See whether noise, brightness, shifts and steps against it change it more easily."
)
@click.option(
    "--layer-plan",
    type=options.PATH,
    metavar="FILE",
    help="Plan of the prune, for --layers of a model that does not say itself what it lost.",
)
@click.option("--layer-sqnr", type=float, metavar="DB", help="Name the first layer below it and fail (with --layers).")
@click.option(
    "--tolerance",
    type=words.TOLERANCE,
    multiple=True,
    help="Largest difference that an output may have: logits:1e-3, or 1e-3 for all (repeatable).",
)
@options.runs()
@options.gates
@options.screen
def command(
    original: Path,
    compressed: Path,
    report: Path | None,
    layers: bool,
    robust: bool,
    layer_plan: Path | None,
    layer_sqnr: float | None,
    tolerance: tuple[tuple[str, float], ...],
    data: str | None,
    run: Run,
    gates: Gates,
    screen: Screen,
) -> None:
    """Compare the outputs of two models.

    Without --data the inputs are random: they show a defect, they do not measure accuracy.
    """
    from onnxprune.cli import comparing
    from onnxprune.evidence.compare import self_noise
    from onnxprune.graph.external import WeightFiles
    from onnxprune.graph.model import load
    from onnxprune.job.describe import note_comparison, note_noise
    from onnxprune.job.job import Job
    from onnxprune.job.original import Original
    from onnxprune.job.sides import describe
    from onnxprune.job.sources_check import check_sources
    from onnxprune.job.write import read_by

    job = Job((), original, data, run, gates)
    if layer_plan is not None and not layers and layer_sqnr is None:
        raise UsageError("a plan tells which channels of layers are left: give it with --layers.")
    also = (compressed,) if layer_plan is None else (compressed, layer_plan)
    reads = {**read_by(job, also), "weights of a model": WeightFiles(compressed)}
    with telling("validate", screen, report, reads, seed=run.seed) as record:
        check_sources(job)
        with screen.stage(record, "load", "reading the models"):
            before, after = load(original), load(compressed)
            record.input = describe(before, run.input_shapes)
            record.output = describe(after, run.input_shapes)
        source = Original(before, data, run, gates, original.parent, fits=False)
        with screen.stage(record, "validate", "running both models"):
            comparison = source.compare(compressed)
            noise = self_noise(source.reference, threads=run.threads, provider=run.provider)
        note_comparison(record, comparison)
        note_noise(record, noise)
        below = None
        if layers or layer_sqnr is not None:
            with screen.stage(record, "layers", "comparing the layers"):
                feeds = source.reference.samples
                below = comparing.note_layers(record, (before, after), feeds, layer_sqnr, run, layer_plan)
        if robust:
            with screen.stage(record, "robust", "changing the inputs a little"):
                comparing.note_robust(record, source.reference, (before, after), run)
        drop = None
        if gates.eval is not None:
            with screen.stage(record, "evaluate", "evaluating both models"):
                value = source.evaluated(compressed)
                drop = source.value - value
                record.details["evaluation"] = {"before": source.value, "after": value, "drop": drop}
        failures = [*comparing.beyond(comparison, tolerance), *gates.failures(comparison.parity, drop)]
        failures = comparing.with_layer(below, failures, layer_sqnr)
        verdict = replace(comparison, noise=noise.results()).judged(failures)
        record.details["verdict"] = verdict.to_json()
    if failures:
        raise GateError(f"{'; '.join(failures)}. The models are as they were.")
    if verdict.status in ("poor", "failed") and gates.is_strict:
        raise GateError(f"{verdict.sentence} The models are as they were.")
