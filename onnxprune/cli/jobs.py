"""Commands that carry out a job: one factory for the methods, and what they and recipes have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import options
from onnxprune.cli.group import ARGUMENTS
from onnxprune.cli.screen import Screen
from onnxprune.errors import OnnxpruneError

if TYPE_CHECKING:
    from onnxprune.job.gates import Gates
    from onnxprune.job.job import Job
    from onnxprune.job.outputs import Outputs
    from onnxprune.job.run import Run
    from onnxprune.report import Report

Decorator = Callable[[Any], Any]
Prepare = Callable[[dict[str, Any], Path, Any], dict[str, Any]]
"""Turns words of the command line (in place; model, outputs) into options; returns further fields of the job."""


def method_command(
    name: str,
    about: str,
    *choices: Decorator,
    default: str,
    outputs: Iterable[str] = ("output", "no_clobber", "report", "summary", "no_provenance", "print_recipe"),
    prepare: Prepare | None = None,
) -> click.Command:
    """Return the command of a method.

    Args:
        about: its help; the first sentence stands in the list of commands.
        choices: click options and arguments, named like the options of the method.
        default: the usual name of the output. outputs: options of what is written where.
    """

    def callback(
        model: Path,
        data: str | None,
        run: Run,
        gates: Gates,
        outputs: Outputs,
        print_recipe: bool,
        screen: Screen,
        **given: Any,
    ) -> None:
        from onnxprune.job.job import Job, step

        read = tuple(value for key, value in given.items() if isinstance(value, Path) and key != "state")
        more = prepare(given, model, outputs) if prepare is not None else {}
        job = Job((step(name, **given),), model, data, run, gates, outputs, name=name, **more)
        finish(job, screen, print_recipe=print_recipe, also=read)

    bundles = (options.screen, options.gates, options.runs(), options.outputs(default, *outputs))
    for decorate in (*bundles, *reversed(choices)):
        callback = decorate(callback)
    callback.__doc__ = about
    return click.command(name, help=about)(options.model(callback))


def started(name: str, **details: Any) -> Report:
    """Return the report of a command that is no job, with the words of its command line."""
    from onnxprune.job.surroundings import surroundings
    from onnxprune.report import Report

    argv = click.get_current_context().meta.get(ARGUMENTS, ())
    return Report(name, details={**details, **surroundings(argv)})


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
