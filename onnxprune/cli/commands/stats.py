"""onnxprune stats: statistics of a model on data, as a file; and several of them added up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxprune.cli import options
from onnxprune.cli.jobs import telling
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand
from onnxprune.job.run import THERE

if TYPE_CHECKING:
    from onnxprune.job.run import Run
    from onnxprune.report import Report
    from onnxprune.statistics.kept_sums import KeptSums

MERGE = "merge"


@click.command(cls=SectionedCommand)
@click.argument("files", type=options.PATH, nargs=-1, required=True, metavar="MODEL | merge STATS [STATS ..]")
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="Where it goes [default: MODEL.stats].")
@click.option("--shard", type=click.IntRange(min=1), default=512, metavar="N", help="Samples a term [default: 512].")
@click.option(
    "--patches", is_flag=True, help="Also of what convolutions multiply, channels times taps, for a better refit."
)
@options.report
@options.runs(without=("verify", "seed", "input_shapes", "target", *THERE))
@options.screen
def command(
    files: tuple[Path, ...],
    output: Path | None,
    shard: int,
    patches: bool,
    data: str | None,
    report: Path | None,
    run: Run,
    screen: Screen,
) -> None:
    """Collect statistics of what the layers of MODEL read on --data, for the --stats of other commands.

    They are sums: `onnxprune stats merge a.stats b.stats -o all.stats` adds those of several shards, collected wherever
    the data are. All samples are used.
    """
    from onnxprune.errors import UsageError

    if str(files[0]) == MERGE and len(files) > 1:
        if data is not None:
            raise UsageError("merge adds statistics up: leave --data out.")
        if output is None:
            raise UsageError("name where the sum goes: -o all.stats.")
        _merge(files[1:], output, report, screen)
        return
    if str(files[0]) == MERGE and not files[0].exists():
        raise UsageError("merge adds files of statistics up: name them, 'onnxprune stats merge a.stats b.stats'.")
    if len(files) > 1:
        raise UsageError(f"'{files[1]}': give one model; 'onnxprune stats merge' adds files of statistics up.")
    if data is None:
        raise UsageError("stats runs the model on its inputs: give --data.")
    _collect(files[0], data, output or files[0].with_suffix(".stats"), shard, patches, report, run, screen)


def _collect(
    model: Path, data: str, output: Path, shard: int, patches: bool, report: Path | None, run: Run, screen: Screen
) -> None:
    from onnxprune.cluster.hiring import hired
    from onnxprune.graph.model import load
    from onnxprune.job.job import Job
    from onnxprune.job.outputs import check_distinct, check_writable
    from onnxprune.job.sources_check import check_sources
    from onnxprune.job.write import read_by
    from onnxprune.methods.gather import gather
    from onnxprune.statistics.data import read
    from onnxprune.statistics.feeds import input_specs

    job = Job((), model, data, run)
    check_writable(output, inputs=read_by(job))
    check_distinct((report, output))
    with telling("stats", screen, report, read_by(job)) as record:
        check_sources(job)
        with screen.stage(record, "load", "reading the model"):
            source = load(model)
        with screen.stage(record, "data", "reading the data"):
            samples = read(data, input_specs(source.proto), samples=run.samples, images=run.images)
        with screen.stage(record, "stats", "running the model") as tell, hired(run.cluster):
            found = gather(source, samples, shard=shard, patches=patches, runtime=run, progress=tell)
        for warning in (*samples.warnings, *found.notes):
            record.warn(warning)
        _write(found, output, record)


def _merge(files: tuple[Path, ...], output: Path, report: Path | None, screen: Screen) -> None:
    from onnxprune.job.outputs import check_distinct, check_writable
    from onnxprune.statistics.kept_sums import merged_sums, read_sums

    reads = {"statistics that are added": files}
    check_writable(output, inputs=reads)
    check_distinct((report, output))
    with telling("stats", screen, report, reads) as record:
        with screen.stage(record, "stats", "adding up"):
            found = merged_sums([read_sums(file) for file in files], [str(file) for file in files])
        _write(found, output, record)


def _write(found: KeptSums, output: Path, record: Report) -> None:
    from onnxprune.files.staging import Staging

    with Staging() as staging:
        staging.content(output, found.to_bytes())
        staging.commit()
    record.details["statistics"] = {"file": str(output), **found.facts()}
