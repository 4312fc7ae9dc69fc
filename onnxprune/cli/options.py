"""Click options made from what classes of options say about themselves, and the few that belong to no class."""

from __future__ import annotations

import functools
import os
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any, TypeVar

import click

from onnxprune.cli import words
from onnxprune.cli.noted import VERBOSE
from onnxprune.cli.screen import Screen
from onnxprune.cli.sections import SectionedOption
from onnxprune.job.gates import Gates
from onnxprune.job.outputs import Outputs
from onnxprune.job.run import THERE, Run
from onnxprune.option import Said, default_of, options_of, said, section_of
from onnxprune.processes.engine import most_threads
from onnxprune.processes.places import VARIABLE

SHARED_OUT = ("cluster",)
"""Options of runs that are for commands whose work a cluster shares."""
Command = Callable[..., None]
Decorator = Callable[[Command], Command]
Kind = TypeVar("Kind")
PATH = click.Path(path_type=Path)
SPELT: dict[str, click.ParamType] = {  # type: ignore[type-arg]  # generic from click 8.4 on only
    "shape": words.SHAPE,
    "size": words.IMAGE_SIZE,
    "latency": words.LATENCY,
    "numbers": words.NUMBERS,
    "bytes": words.BYTES,
    "words": click.STRING,
    "text": click.STRING,
    "file": PATH,
    "path": PATH,
}


def made_from(kind: type, *names: str, without: Collection[str] = (), **helps: str) -> list[click.Parameter]:
    """Return the options of a class, or the named ones.

    Args:
        helps: name -> what the help says instead.
    """
    found: list[click.Parameter] = []
    for field in options_of(kind):
        about, default = said(field), default_of(field)
        if about.found or field.name in without or (names and field.name not in names):
            continue
        if about.spelt == "group":
            found += made_from(type(default))
        else:
            found.append(_parameter(kind, field, about, default, helps.get(field.name, about.help)))
    return found


def _parameter(kind: type, field: Field[object], about: Said, default: object, help: str) -> click.Parameter:
    name, hint, section = _name(kind, field), _hint(kind, field.name), section_of(kind, field.name)
    if about.argument:
        return click.Argument([name], type=PATH, metavar=about.metavar)
    flags = about.flag or f"--{field.name.replace('_', '-')}"
    if hint is bool:
        both = flags if about.flag or default is False else f"{flags}/--no-{flags[2:]}"
        return SectionedOption([name, both], section=section, is_flag=True, default=default, help=help)
    return SectionedOption(
        [name, *flags.split(", ")],
        type=_type(about, hint),
        metavar=about.metavar,
        help=help,
        multiple=hint in (tuple, Mapping) and about.spelt not in ("file", "numbers", "size"),
        callback=_sensible_threads if field.name == "threads" else None,
        section=section,
        listed=about.listed,
    )


def _name(kind: type, field: Field[object]) -> str:
    """Return a name that no option of another class has."""
    return f"{kind.__name__.lower()}_{field.name}"


@functools.cache
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)


def _hint(kind: type, name: str) -> object:
    """Return the one type that an option has besides None: bool, int, float, str, Path, tuple or Mapping."""
    hint = _hints(kind)[name]
    inner = [item for item in typing.get_args(hint) if item is not type(None)]
    if typing.get_origin(hint) in (tuple, Mapping):
        return typing.get_origin(hint)
    hint = inner[0] if inner else hint
    origin = typing.get_origin(hint)
    return Mapping if origin is not None and issubclass(origin, Mapping) else origin or hint


def _type(about: Said, hint: object) -> object:
    if about.choices:
        return click.Choice(about.choices)
    if about.spelt:
        return SPELT[about.spelt]
    if hint in (int, float) and about.least is not None:
        ends = {"min_open": "<" in about.open, "max_open": ">" in about.open}
        most = about.most
        whole = click.IntRange(min=int(about.least), max=None if most is None else int(most))
        return whole if hint is int else click.FloatRange(about.least, most, **ends)
    kinds: dict[object, object] = {int: click.INT, float: click.FLOAT, Path: PATH}
    return kinds.get(hint, click.STRING)


def given(kind: type, values: dict[str, object]) -> dict[str, object]:
    """Take the options of a class that were given out of the arguments of a command, by their names."""
    found = {}
    for field in options_of(kind):
        about, default = said(field), default_of(field)
        if about.spelt == "group":
            inner = given(type(default), values)
            value = type(default)(**inner) if inner else None
        else:
            value = values.pop(_name(kind, field), None)
        if about.spelt == "words":
            value = tuple(word.strip() for text in value or () for word in text.split(",") if word.strip())
        if value is not None and value != () and not (isinstance(value, bool) and value is default):
            found[field.name] = dict(value) if about.spelt == "shape" else value
    return found


def asked(argument: str, make: Callable[[dict[str, Any]], object], params: Iterable[click.Parameter]) -> Decorator:
    """Add options to a command, whose function gets what is made of their values as one argument."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def wrapper(**values: object) -> None:
            made = make(values)
            function(**{argument: made}, **values)

        mine: list[click.Parameter] = wrapper.__dict__.setdefault("__click_params__", [])
        mine += reversed(list(params))
        return wrapper

    return decorate


def _of(kind: Callable[..., Kind]) -> Callable[[dict[str, object]], Kind]:
    return lambda values: kind(**given(kind, values))  # type: ignore[arg-type]  # a class is what makes its instances


def given_from(argument: str, kind: type, *names: str, **helps: str) -> Decorator:
    """Add the named options of a class; the function gets those that were given, by name, as one argument."""
    return asked(argument, lambda values: given(kind, values), made_from(kind, *names, **helps))


def runs(*names: str, without: Collection[str] = ("verify", "memory", "target", *SHARED_OUT, *THERE)) -> Decorator:
    """Add the options of how models are run, or the named ones, as `run`, and `data` with all of them."""
    add = asked("run", _of(Run), [*made_from(Run, *names, without=without), _NO_CACHE])
    return add if names else lambda function: _DATA(add(function))


def outputs(default: str, *, without: Collection[str] = (), recipe: bool = True) -> Decorator:
    """Add the options of what is written where as `outputs`, and `print_recipe`.

    Args:
        default: the usual name of the model, for the help.
    """
    place = f"Where it goes [default: beside MODEL, {default}]."
    params = made_from(Outputs, without=without, output=place)
    return asked("outputs", _of(Outputs), [*params, *([_PRINT_RECIPE] if recipe else [])])


gates = asked("gates", _of(Gates), made_from(Gates))
model = click.argument("model", type=PATH)


def _note_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


def _keep_no_statistics(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Leave the cache alone until this command has ended."""
    before = os.environ.get(VARIABLE)
    if value and before != "off":
        os.environ[VARIABLE] = "off"
        ctx.call_on_close(lambda: os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before}))


def _sensible_threads(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """Return a number of threads that the machine can carry, and say so where that is less than what was given."""
    if value is None or value <= (most := most_threads()):
        return value
    click.echo(f"warning: --threads {value} is more than this machine can use: {most} are taken", err=True)
    return most


screen = asked(
    "screen",
    lambda values: Screen(**{name: values.pop(name) for name in ("json", "quiet", "verbose")}),
    [
        SectionedOption(
            ["--json"], is_flag=True, help="The report as JSON on standard output, all else on standard error."
        ),
        SectionedOption(["-q", "--quiet"], is_flag=True, help="Print nothing but errors."),
        SectionedOption(
            ["-v", "--verbose"],
            is_flag=True,
            callback=_note_verbose,
            help="Print every group, times, and tracebacks.",
        ),
    ],
)
report = click.option(
    "--report",
    cls=SectionedOption,
    section=Outputs.section,
    type=PATH,
    metavar="FILE",
    help="Write the report to a .html, .json, .md or .xml (JUnit) file.",
)
_NO_CACHE = SectionedOption(
    ["--no-cache"],
    section=Run.section,
    is_flag=True,
    expose_value=False,
    callback=_keep_no_statistics,
    help="Neither read nor keep statistics for a later command (ONNXPRUNE_CACHE names their folder).",
)
_DATA = click.option(
    "--data",
    cls=SectionedOption,
    section=Run.section,
    metavar="PATH",
    help="Inputs: .npz (one array per input), .npy, a folder of those or of images, or file.py:function.",
)
_PRINT_RECIPE = SectionedOption(
    ["--print-recipe"],
    section=Outputs.section,
    is_flag=True,
    help="Print the recipe that does the same (for onnxprune run), and do nothing.",
)
