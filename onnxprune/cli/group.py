"""The group of commands: methods and files, loaded when needed; every error becomes one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import click

from onnxprune.cli import commands, screen
from onnxprune.cli.noted import ARGUMENTS, LISTING, VERBOSE
from onnxprune.cli.refusal import refusal
from onnxprune.errors import OnnxpruneError
from onnxprune.files.shown import one_line, shown
from onnxprune.job.methods import METHODS
from onnxprune.processes.allocator import keep_freed
from onnxprune.processes.memory import is_shortage
from onnxprune.processes.places import keep_statistics
from onnxprune.processes.supervise import supervised
from onnxprune.version import __version__

DEFAULT = "prune"
HELP = "help"
LEADING_FLAGS = frozenset({"-q", "--quiet", "-v", "--verbose", "--json"})
DEFECT, USAGE, INTERRUPTED = 1, 2, 130
CLOSE = 0.75
"""Likeness from which a word before another one is a misspelt command, not a model."""

_SHORTAGE = "memory: there is not enough of it for this; give less (--memory, --samples, --threads) or allow more."


class Commands(click.Group):
    """Methods, and commands by the name of their file; any other word is a model for the default command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*METHODS, *(module.name for module in pkgutil.iter_modules(commands.__path__))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        if cmd_name in METHODS and ctx.meta.get(LISTING):
            return click.Command(cmd_name, help=METHODS[cmd_name].about)
        if cmd_name in METHODS:
            from onnxprune.cli.jobs import method_command

            return method_command(METHODS[cmd_name])
        module = importlib.import_module(f"{commands.__name__}.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List methods by what they are for, without making their options, which takes time."""
        ctx.meta[LISTING] = True
        super().format_commands(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        if args and args[0] not in ("--help", "-h", "--version"):
            args = self._with_command(ctx, args)
        return super().parse_args(ctx, args)

    def _with_command(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command first: flags before it move behind it, and without one it is the default."""
        names = self.list_commands(ctx)
        if args[0] == HELP:
            return [*args[1:2], "--help"]
        flags = next((index for index, arg in enumerate(args) if arg not in LEADING_FLAGS), len(args))
        rest = args[flags:]
        if rest and rest[0] in names:
            return [rest[0], *args[:flags], *rest[1:]]
        if len(rest) > 1 and not rest[1].startswith("-") and difflib.get_close_matches(rest[0], names, cutoff=CLOSE):
            return rest
        return [DEFAULT, *args[:flags], *_with_output(rest)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names:
            close = difflib.get_close_matches(args[0], names, n=1, cutoff=CLOSE)
            meant = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
            raise click.UsageError(f"no such command '{args[0]}'; {meant}", ctx)
        return super().resolve_command(ctx, args)

    def _owners(self, ctx: click.Context, error: click.ClickException) -> list[str]:
        """Return the commands that have the option that another one does not have."""
        if not isinstance(error, click.NoSuchOption):
            return []
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return [
            name
            for name, command in found
            if command is not None and any(error.option_name in param.opts for param in command.params)
        ]

    def invoke(self, ctx: click.Context) -> object:
        arguments = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except OnnxpruneError as error:
            if error.exit_code in (DEFECT, USAGE) and is_shortage(error):
                _fail(ctx, f"{_SHORTAGE} {one_line(error)}", USAGE)
            refused = refusal(arguments) if error.exit_code == DEFECT else None
            _fail(ctx, one_line(refused or str(error)), USAGE if refused else error.exit_code)
        except click.ClickException as error:
            _fail(ctx, _with_help(error, self._owners(ctx, error)), error.exit_code)
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; nothing was written.", INTERRUPTED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            _fail(ctx, _SHORTAGE if is_shortage(error) else f"{one_line(error)}.", USAGE)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if is_shortage(error):
                _fail(ctx, _SHORTAGE, USAGE)
            if (refused := refusal(arguments)) is not None:
                _fail(ctx, one_line(refused), USAGE)
            text = f"{type(error).__name__}: {one_line(error)}"
            _fail(ctx, f"this is a defect of onnxprune, please report it (-v shows where): {text}", DEFECT)


def _fail(ctx: click.Context, text: str, code: int) -> NoReturn:
    if ctx.meta.get(VERBOSE):
        click.echo(shown(traceback.format_exc(), keep="\n"), err=True, nl=False)
    click.echo(f"error: {text}", err=True)
    ctx.exit(code)


def _with_output(arguments: list[str]) -> list[str]:
    """Return the arguments with a second model, which stands right behind the first, as the output."""
    named = {argument.partition("=")[0] for argument in arguments} & {"-o", "--output"}
    if named or len(arguments) < 2 or any(argument.startswith("-") for argument in arguments[:2]):
        return arguments
    if not arguments[1].endswith(".onnx"):
        return arguments
    return [arguments[0], "-o", *arguments[1:]]


def _with_help(error: click.ClickException, owners: Sequence[str] = ()) -> str:
    text = one_line(error.format_message())
    if owners and isinstance(error, click.NoSuchOption):
        text = f"No such option: {error.option_name}, which belongs to onnxprune {', '.join(owners)}"
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return text
    if text.endswith("?"):
        return f"{text} See {error.ctx.command_path} --help."
    return f"{text.rstrip('.')}; see {error.ctx.command_path} --help."


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"onnxprune {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="onnxprune MODEL [OPTIONS] is the same as onnxprune prune MODEL [OPTIONS].",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Prune ONNX models after export, and prove that the result still does its job."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, watched by a process of its own, and end with its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    keep_freed()
    supervised(partial(_run, arguments))


def _run(arguments: list[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if "--json" in arguments:
        screen.keep_output_for_json()
    keep_statistics()
    cli.main(args=arguments, prog_name="onnxprune")
