"""Where the command line prints: results on standard output, progress, warnings and errors on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

import click

from onnxprune.files.shown import one_line, shown
from onnxprune.processes import journal

if TYPE_CHECKING:
    from rich.console import Console

    from onnxprune.report import Report


_for_json: TextIO | None = None
"""Where the report goes as JSON; None: to standard output."""


def keep_output_for_json() -> None:
    """Keep standard output for the report: what user code and native libraries print goes to standard error."""
    global _for_json
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        _for_json = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
        os.dup2(2, 1)


EVERY = 15.0
"""Seconds between two lines of progress where there is no terminal."""


@dataclass
class Lines:
    """Progress for a pipe or a log: now and then a line."""

    every: float = EVERY
    clock: Callable[[], float] = time.monotonic
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.clock()

    def __call__(self, text: str) -> None:
        """Print the text if it is time."""
        if self.clock() - self.last >= self.every:
            self.last = self.clock()
            click.echo(text, err=True)


@dataclass(frozen=True)
class Screen:
    """How much is printed and as what.

    json: the report as JSON on standard output, everything else on standard error.
    quiet: nothing but errors (and the JSON that was asked for).
    verbose: details, stage times, tracebacks.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @cached_property
    def errors(self) -> Console:
        """The console on standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, report: Report, name: str, text: str) -> Iterator[Callable[[str], None]]:
        """Measure a stage of the work and show it; what is yielded changes the text.

        On a terminal the text is a live line; elsewhere it is printed when the last line is `EVERY` seconds old.
        """
        journal.note("stage", text)
        with report.stage(name):
            if self.quiet:
                yield lambda text: None
                return
            if not sys.stderr.isatty():
                yield Lines()
                return
            from rich.text import Text

            with self.errors.status(text) as status:
                yield lambda text: status.update(Text(one_line(text)))

    def warn(self, text: str) -> None:
        """Print a warning."""
        if not self.quiet:
            click.echo(f"warning: {shown(text)}", err=True)

    def say(self, text: str) -> None:
        """Print a line beside the result."""
        if not self.quiet:
            click.echo(shown(text, keep="\n"), err=self.json)

    def show(self, report: Report) -> None:
        """Print the report and its warnings."""
        for warning in report.warnings:
            self.warn(warning)
        if not self.quiet:
            from rich.console import Console

            from onnxprune.report.text import print_report

            console = Console(stderr=self.json, highlight=False)
            print_report(report, console, verbose=self.verbose)
        if self.json:
            self.print_json(report.to_json())

    def print_json(self, text: str) -> None:
        """Print the one JSON document of a command."""
        click.echo(text, nl=False, file=_for_json)
        if _for_json is not None:
            _for_json.flush()
