"""Commands that carry out a job: one factory for the methods, and what they and recipes have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.noted import ARGUMENTS
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedCommand, SectionedOption
from onnxprune.errors import OnnxpruneError
from onnxprune.job.run import SHARED
from onnxprune.option import options_of, said

if TYPE_CHECKING:
    from onnxprune.job.gates import Gates
    from onnxprune.job.job import Job
    from onnxprune.job.methods import Method
    from onnxprune.job.outputs import Outputs
    from onnxprune.job.run import Run
    from onnxprune.report import Report


def method_command(method: Method) -> click.Command:
    """Return the command of a method, made from the class of its options and what jobs have in common."""
    kind = method.options

    def callback(
        model: Path,
        data: str | None,
        run: Run,
        gates: Gates,
        outputs: Outputs,
        print_recipe: bool,
        screen: Screen,
        asked: dict[str, Any],
        measure_latency: bool = False,
    ) -> None:
        from onnxprune.job.job import Job, step

        read = tuple(value for value in asked.values() if isinstance(value, Path) and value != asked.get("state"))
        for field in options_of(kind):
            if beside := said(field).beside:
                asked.setdefault(field.name, _beside(outputs.output, model, method, beside))
        steps = (step(method.name, **asked),)
        job = Job(steps, model, data, run, gates, outputs, measure_latency=measure_latency, name=method.name)
        finish(job, screen, print_recipe=print_recipe, also=read)

    unasked = ("intermediates", "keep_last_good", *(() if method.plans else ("plan",)))
    bundles: tuple[options.Decorator, ...] = (
        options.screen,
        options.gates,
        options.runs(without=method.needless),
        options.outputs(method.usual or f"MODEL-{method.ending}.onnx", without=unasked),
        *([_TIMED] if method.timed else []),
        options.asked("asked", lambda values: options.given(kind, values), options.made_from(kind, without=SHARED)),
        options.model,
    )
    decorated: options.Command = callback
    for decorate in bundles:
        decorated = decorate(decorated)
    return click.command(method.name, cls=SectionedCommand, help=method.about)(decorated)


_TIMED = click.option(
    "--latency/--no-latency",
    "measure_latency",
    cls=SectionedOption,
    section="What to do",
    default=True,
    help="Measure the result against the original [default: do].",
)


def _beside(output: Path | None, model: Path, method: Method, ending: str) -> Path:
    from onnxprune.graph.source_file import stem

    target = output or model.with_name(f"{stem(model)}-{method.ending}.onnx")
    return target.with_name(f"{target.name}.{ending}")


@contextmanager
def telling(
    name: str,
    screen: Screen,
    report: Path | None,
    reads: Mapping[str, Iterable[Path]],
    also: Mapping[Path | None, str] = MappingProxyType({}),
    **details: object,
) -> Iterator[Report]:
    """Give the report of a command that is no job, and write and show it at the end.

    Args:
        report: its file, looked at before any work. reads: what files are read as, which it must not be.
        also: files that appear together with it, filled meanwhile.
    """
    from onnxprune.job.outputs import check_report_name, check_writable, report_text, write_texts
    from onnxprune.job.surroundings import surroundings
    from onnxprune.report import Report

    check_report_name(report)
    check_writable(report, inputs=reads)
    argv = click.get_current_context().meta.get(ARGUMENTS, ())
    record = Report(name, details={**details, **surroundings(argv)})
    yield record
    texts: dict[Path | None, str] = {**also}
    if report is not None:
        texts[report] = report_text(report, record)
    write_texts(texts)
    screen.show(record)


def finish(
    job: Job, screen: Screen, *, print_recipe: bool = False, suffix: str | None = None, also: tuple[Path, ...] = ()
) -> None:
    """Carry out a job, or print its recipe, and show what came of it."""
    from onnxprune.job.write import check_job, write_job

    if print_recipe:
        from onnxprune.recipe import to_yaml

        target = check_job(job, suffix=suffix, also=also)
        job = replace(job, outputs=replace(job.outputs, output=target))
        if screen.json:
            screen.print_json(f"{json.dumps(job.as_data(), indent=2)}\n")
        else:
            click.echo(to_yaml(job.as_data()), nl=False)
        return
    job = replace(job, argv=tuple(click.get_current_context().meta.get(ARGUMENTS, ())))
    try:
        done = write_job(job, stage=screen.stage, suffix=suffix, also=also)
    except KeyboardInterrupt:
        for state in (getattr(step.options, "state", None) for step in job.steps):
            if state is not None and state.is_file():
                click.echo(f"what was measured is kept in '{state}'; the same command goes on from there.", err=True)
        raise
    except OnnxpruneError as error:
        if screen.json and error.report is not None:
            screen.print_json(error.report.to_json())
        raise
    screen.show(done.report)
