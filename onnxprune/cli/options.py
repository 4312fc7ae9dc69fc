"""Options that commands share, in bundles: a command takes a bundle as one frozen value."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from onnxprune.cli.group import VERBOSE
from onnxprune.cli.screen import Screen
from onnxprune.processes.engine import most_threads
from onnxprune.processes.places import VARIABLE

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]
PATH = click.Path(path_type=Path)


class InputShape(click.ParamType):  # type: ignore[type-arg]
    """`name:1,3,224,224`; the name may hold colons itself."""

    name = "NAME:SIZES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, colon, sizes = str(value).rpartition(":")
        try:
            shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
        except ValueError:
            shape = (0,)
        if not colon or not name or any(size < 1 for size in shape):
            self.fail(f"'{value}' is not like name:1,3,224,224 (positive sizes, one for each axis).", param, ctx)
        return name, shape


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers between commas: `0.485,0.456,0.406`."""

    name = "X[,X..]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return tuple(float(number) for number in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not like 0.5 or 0.485,0.456,0.406.", param, ctx)


class WholeNumbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers between commas: `1,2,4`."""

    name = "N[,N..]"

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.isascii() and word.isdigit() and int(word) >= self.least for word in words):
            self.fail(f"'{value}' is not like 4 or 1,2,4 (whole numbers from {self.least}).", param, ctx)
        return tuple(dict.fromkeys(int(word) for word in words))


class Tolerance(click.ParamType):  # type: ignore[type-arg]
    """`NAME:1e-3`, or `1e-3` for every output; the name may hold colons itself."""

    name = "[NAME:]X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, _, number = str(value).rpartition(":")
        try:
            limit = float(number)
        except ValueError:
            limit = -1.0
        if not 0 <= limit < float("inf"):
            self.fail(f"'{value}' is not like logits:1e-3 or 1e-3 (largest difference, from 0).", param, ctx)
        return name, limit


class ImageSize(click.ParamType):  # type: ignore[type-arg]
    """`224` or `height,width`."""

    name = "H[,W]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        sizes = str(value).replace("x", ",").split(",")
        if len(sizes) > 2 or not all(size.isdigit() and int(size) for size in sizes):
            self.fail(f"'{value}' is not like 224 or 480,640.", param, ctx)
        return int(sizes[0]), int(sizes[-1])


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """`4GB`, `512MB`."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value).upper().removesuffix("B")
        unit = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:], 0)
        try:
            size = int(float(text[:-1] if unit else text) * (1 << unit))
        except (ValueError, OverflowError):
            size = 0
        if size < 1:
            self.fail(f"'{value}' is not like 4GB or 512MB.", param, ctx)
        return size


def _bundle(make: Callable[[dict[str, Any]], dict[str, Any]], *options: Callable[[Any], Any]) -> Decorator:
    """Add options whose values `make` takes out of the arguments; what it returns is given to the function instead."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(**values: Any) -> Any:
            return function(**make(values), **values)

        decorated: Any = wrapper
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _taken(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values.pop(name) for name in names if name in values}


def _screen(values: dict[str, Any]) -> dict[str, Any]:
    return {"screen": Screen(**_taken(values, ("json", "quiet", "verbose")))}


def _run(values: dict[str, Any]) -> dict[str, Any]:
    """Take out what makes a `Run`, and the data; what is heavy is imported now, not for --help."""
    from onnxprune.job.run import Run
    from onnxprune.statistics.images import ImageOptions

    mine = _taken(values, (*_RUN_OPTIONS, "verify", "memory"))
    given = {"data": mine.pop("data")} if "data" in mine else {}
    images = {"size": mine.pop("image_size", None), "layout": mine.pop("layout", None)}
    images |= {"mean": mine.pop("mean", None) or (0.0,), "std": mine.pop("std", None) or (1.0,)}
    shapes = dict(mine.pop("input_shape", ()))
    return {**given, "run": Run(**mine, input_shapes=shapes, images=ImageOptions(**images))}


def _gates(values: dict[str, Any]) -> dict[str, Any]:
    from onnxprune.job.gates import Gates

    names = ("min_cosine", "min_sqnr", "min_agreement", "max_drop", "eval", "judge_data", "strict")
    return {"gates": Gates(**_taken(values, names))}


def _outputs(values: dict[str, Any]) -> dict[str, Any]:
    from onnxprune.job.outputs import Outputs

    asked = values.pop("print_recipe", False)
    return {"outputs": Outputs(**_taken(values, ("output", *_OUTPUT_OPTIONS))), "print_recipe": asked}


def _note_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[VERBOSE] = value
    return value


class ScoreOption(click.Option):
    """Lists the criteria of the registry when help is asked for, and not before: that imports numpy."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from onnxprune.score import names

        flags, about = super().get_help_record(ctx) or ("", "")
        return flags, f"{about} One of {', '.join(names())}."


score = click.option(
    "--score", cls=ScoreOption, metavar="NAME", help="How much a channel matters [default: lstsq with --data, else l2]."
)
model = click.argument("model", type=PATH)

screen = _bundle(
    _screen,
    click.option("--json", is_flag=True, help="The report as JSON on standard output, all else on standard error."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option(
        "-v", "--verbose", is_flag=True, callback=_note_verbose, help="Print every group, times, and tracebacks."
    ),
)


def _keep_no_statistics(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Leave the cache alone until this command has ended."""
    before = os.environ.get(VARIABLE)
    if value and before != "off":
        os.environ[VARIABLE] = "off"
        ctx.call_on_close(lambda: os.environ.pop(VARIABLE) if before is None else os.environ.update({VARIABLE: before}))


def _sensible_threads(ctx: click.Context, param: click.Parameter, value: int) -> int:
    """Return a number of threads that the machine can carry, and say so where that is less than what was given."""
    if value <= (most := most_threads()):
        return value
    click.echo(f"warning: --threads {value} is more than this machine can use: {most} are taken", err=True)
    return most


_NO_CACHE = click.option(
    "--no-cache",
    is_flag=True,
    expose_value=False,
    callback=_keep_no_statistics,
    help="Neither read nor keep statistics for a later command (ONNXPRUNE_CACHE names their folder).",
)

_RUN_OPTIONS = {
    "data": click.option(
        "--data",
        metavar="PATH",
        help="Inputs: .npz (one array per input), .npy, a folder of those or of images, or file.py:function.",
    ),
    "image_size": click.option(
        "--image-size", type=ImageSize(), help="Images are resized to it [default: the input's]."
    ),
    "mean": click.option("--mean", type=Numbers(), help="Subtracted from pixels on the scale 0 to 1 [default: 0]."),
    "std": click.option("--std", type=Numbers(), help="Divides them then [default: 1]."),
    "layout": click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Of images [default: the input's]."),
    "samples": click.option("--samples", type=click.IntRange(min=1), metavar="N", help="How many inputs to run."),
    "seed": click.option(
        "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Seed of what is random [default: 0]."
    ),
    "input_shape": click.option(
        "--input-shape", type=InputShape(), multiple=True, help="Sizes of an input: name:1,3,224,224 (repeatable)."
    ),
    "provider": click.option("--provider", metavar="NAME", help="Execution provider of onnxruntime [default: CPU]."),
    "threads": click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        callback=_sensible_threads,
        help="Threads of onnxruntime [default: all].",
    ),
}


def runs(*names: str) -> Decorator:
    """Add the named options of how models are run, or all of them: they become `run`, and `data`."""
    return _bundle(_run, *(_RUN_OPTIONS[name] for name in names or _RUN_OPTIONS), _NO_CACHE)


gates = _bundle(
    _gates,
    click.option("--min-cosine", type=click.FloatRange(-1, 1), metavar="X", help="Least cosine with the original."),
    click.option("--min-sqnr", type=float, metavar="DB", help="Least signal to noise ratio, in dB."),
    click.option("--min-agreement", type=click.FloatRange(0, 1), metavar="X", help="Least top-1 agreement."),
    click.option("--max-drop", type=float, metavar="X", help="Most that the value of --eval may drop."),
    click.option(
        "--eval", metavar="FILE.PY:FUNCTION", help="Function of a model path that returns a number; higher is better."
    ),
    click.option(
        "--judge-data", metavar="PATH", help="Inputs that the result is judged on [default: one in four of --data]."
    ),
    click.option(
        "--strict/--no-strict",
        default=None,
        help="Fail where the result is far from the original, whatever was asked [default: where CI is set].",
    ),
)

report = click.option(
    "--report", type=PATH, metavar="FILE", help="Write the report to a .html, .json, .md or .xml (JUnit) file."
)

_OUTPUT_OPTIONS = {
    "no_clobber": click.option("--no-clobber", is_flag=True, help="Refuse to replace existing files."),
    "report": report,
    "summary": click.option("--summary", type=PATH, metavar="FILE", help="Write a summary in Markdown, for CI pages."),
    "plan": click.option("--plan", type=PATH, metavar="FILE", help="Write the plan, what is removed, to a .json file."),
    "no_provenance": click.option(
        "--no-provenance", is_flag=True, help="Leave the onnxprune.* keys out of the metadata."
    ),
    "print_recipe": click.option(
        "--print-recipe", is_flag=True, help="Print the recipe that does the same (for onnxprune run), and do nothing."
    ),
}


def outputs(default: str, *names: str) -> Decorator:
    """Add the named options of what is written where: they become `outputs`, and `print_recipe`.

    Args:
        default: the usual name of the model, for the help.
    """
    place = click.option(
        "-o", "--output", type=PATH, metavar="FILE", help=f"Where it goes [default: beside MODEL, {default}]."
    )
    table = {"output": place, **_OUTPUT_OPTIONS}
    return _bundle(_outputs, *(table[name] for name in names))


effort = click.option(
    "--effort",
    metavar="quick|default|thorough|TIME",
    help="How long gradient steps go on: none, a fixed budget, as long as held-out samples get better, or a time (90s, "
    "30m, 2h) [default: default].",
)


def compensation(function: Function) -> Function:
    """Add the options that say how what is lost is made up for."""
    mode = click.option(
        "--compensate",
        type=click.Choice(["none", "bias", "lstsq", "distil"]),
        help="Change what stays so that it gives what the original gave on --data: mean and variance of each channel, "
        "a least-squares refit, or gradient steps after it; without --data on made-up inputs, which is weaker "
        "[default: distil with --data, lstsq for large networks and without data].",
    )
    steps = click.option(
        "--steps", type=click.IntRange(min=1), metavar="N", help="Gradient steps [default: up to 600, by size]."
    )
    decorated: Function = mode(steps(effort(function)))
    return decorated


def resizing(function: Function) -> Function:
    """Add the options that let inputs and outputs shrink with the channels inside."""
    resize = click.option(
        "--resize-io",
        multiple=True,
        metavar="PATTERN",
        help="These inputs and outputs may shrink with the channels inside, a state that is fed back on both sides "
        "(repeatable).",
    )
    states = click.option(
        "--state",
        "states",
        multiple=True,
        metavar="OUT=IN",
        help="An output is fed to an input in the next call, which their names do not show; both may shrink.",
    )
    decorated: Function = resize(states(function))
    return decorated


memory = click.option(
    "--memory",
    type=Bytes(),
    help="What statistics of --data, and then the refit, may take, as in 4GB [default: 2GB, 4GB].",
)

verify = click.option(
    "--verify/--no-verify",
    default=None,
    help="Compare with the original whose removed channels are zeroed [default: for models that run in 2 s]; "
    "--no-verify with --compensate none runs nothing.",
)


def layers(leave: str, verb: str) -> Callable[[Function], Function]:
    """Return the options that choose layers by name: those to leave, and those that alone are changed."""
    skip = click.option("--skip", multiple=True, metavar="PATTERN", help=f"{leave} (repeatable).")
    only = click.option("--only", multiple=True, metavar="PATTERN", help=f"{verb} nothing but these (repeatable).")

    def decorated(function: Function) -> Function:
        result: Function = skip(only(function))
        return result

    return decorated


def unfitted(function: Function) -> Function:
    """Add the option that cuts what no refit makes up for."""
    option = click.option(
        "--cut-unfitted",
        is_flag=True,
        help="With --data, cut too what no refit makes up for: channels read by operators that it does not know, "
        "branches that no sample takes.",
    )
    decorated: Function = option(function)
    return decorated


def attention(function: Function) -> Function:
    """Add the options that choose between attention heads and the positions inside them."""
    heads = click.option(
        "--heads/--no-heads", default=None, help="Whole attention heads [default: where attention is recognised]."
    )
    head_dim = click.option(
        "--head-dim/--no-head-dim", default=None, help="Positions inside heads [default: where heads are not]."
    )
    decorated: Function = heads(head_dim(function))
    return decorated
