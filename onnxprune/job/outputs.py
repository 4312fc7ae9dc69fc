"""What a job writes where: checked before the work begins, written atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.errors import OutputError, UsageError

if TYPE_CHECKING:
    from onnxprune.report import Report

REPORT_SUFFIXES = (".json", ".html")


@dataclass(frozen=True)
class Outputs:
    """What is written where.

    output: the model; None: beside the input, named after what was done.
    report: .json or .html. plan: what a prune removes, as JSON.
    intermediates: a folder for the model after every step.
    keep_last_good: where a gate fails, write the model of the step before.
    no_clobber: refuse to replace existing files.
    no_provenance: leave the onnxprune.* keys out of the metadata.
    """

    output: Path | None = None
    report: Path | None = None
    plan: Path | None = None
    intermediates: Path | None = None
    keep_last_good: bool = False
    no_clobber: bool = False
    no_provenance: bool = False


def check_outputs(outputs: Outputs, target: Path, inputs: Sequence[Path]) -> None:
    """Make sure, before any work, that everything that a job writes can be written.

    Args:
        target: where the model goes.
        inputs: files that are read, and so never replaced.

    Raises:
        OutputError: a place that cannot be written, is an input, or exists and must stay.
        UsageError: a report of an unknown kind, or one name for two outputs.
    """
    files = (target, outputs.report, outputs.plan)
    check_report_name(outputs.report)
    for path in files:
        check_writable(path, inputs=inputs, clobber=not outputs.no_clobber)
    check_distinct(files)


def check_writable(path: Path | None, *, inputs: Sequence[Path] = (), clobber: bool = True) -> None:
    """Make sure, before any work, that a file can be written.

    Raises:
        OutputError: its folder is missing or closed, it is an input or a folder, or it exists and must stay.
    """
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise OutputError(f"'{path}': its folder does not exist; create it or write elsewhere.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"'{path}': its folder cannot be written to; write elsewhere.")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise OutputError(f"'{path}' is the input; an input is never replaced, give another name.")
    if not clobber and path.exists():
        raise OutputError(f"'{path}' exists and --no-clobber was given; remove it or write elsewhere.")


def check_report_name(path: Path | None) -> None:
    """Make sure that the report is of a known kind.

    Raises:
        UsageError: its suffix is neither .json nor .html.
    """
    if path is not None and path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"--report '{path}': a report is a .json or a .html file.")


def check_distinct(paths: Sequence[Path | None]) -> None:
    """Make sure that no two outputs have the same name.

    Raises:
        UsageError: two are the same.
    """
    named = [path.absolute() for path in paths if path is not None]
    for index, path in enumerate(named):
        if path in named[:index]:
            raise UsageError(f"'{path.name}' is named for two outputs; give each a name of its own.")


def write_report(path: Path | None, report: Report) -> None:
    """Write the report as JSON or as a page, by the suffix."""
    if path is None:
        return
    if path.suffix.lower() == ".html":
        from onnxprune.report.page import to_html

        write_text(path, to_html(report))
    else:
        write_text(path, report.to_json())


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it.

    Raises:
        OutputError: it cannot be written.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror or error}); write elsewhere.") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def read_text(path: Path, what: str) -> str:
    """Return the text of a small file.

    Raises:
        UsageError: it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"the {what} '{path}' does not exist.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"the {what} '{path}' is not a text file; give one that was written by --{what}.") from error
    except OSError as error:
        raise UsageError(f"the {what} '{path}' cannot be read ({error.strerror or error}).") from error
