"""What a job writes where: checked before the work begins, written atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from onnxprune.errors import OutputError, UsageError
from onnxprune.files.identity import real_target, refuse_inputs
from onnxprune.files.staging import Staging
from onnxprune.option import documented, option

if TYPE_CHECKING:
    from onnxprune.report import Report

REPORT_SUFFIXES = (".json", ".html", ".md", ".xml")


@documented
@dataclass(frozen=True)
class Outputs:
    """What is written where."""

    section: ClassVar[str] = "What is written"

    output: Path | None = option(
        None, "Where it goes [default: beside MODEL, MODEL-RECIPE.onnx].", metavar="FILE", flag="-o, --output"
    )
    report: Path | None = option(None, "Write the report to a .html, .json, .md or .xml (JUnit) file.", metavar="FILE")
    summary: Path | None = option(None, "Write a summary in Markdown, for CI pages.", metavar="FILE")
    bom: Path | None = option(
        None, "Write a CycloneDX bill of materials, what the model was made from, to a .json file.", metavar="FILE"
    )
    sign: Path | None = option(
        None, "Sign it with this private key (PEM); the signature goes beside it, see verify.", metavar="KEY"
    )
    plan: Path | None = option(None, "Write the plan, what is removed, to a .json file.", metavar="FILE")
    intermediates: Path | None = option(None, "Keep the model after every step there.", metavar="FOLDER", flag="--keep")
    keep_last_good: bool = option(False, "If a gate fails, write the model of the step before.")
    no_clobber: bool = option(False, "Refuse to replace existing files.")
    no_provenance: bool = option(False, "Leave the onnxprune.* keys out of the metadata.")

    @property
    def texts(self) -> tuple[Path | None, ...]:
        """The files besides the model."""
        return self.report, self.summary, self.bom, self.plan


def check_outputs(outputs: Outputs, target: Path, inputs: Mapping[str, Iterable[Path]]) -> None:
    """Make sure, before any work, that everything that a job writes can be written.

    Args:
        target: where the model goes.
        inputs: what files are read as, such as "the model" -> these files, which are never replaced.

    Raises:
        OutputError: a place that cannot be written, is an input, or exists and must stay.
        UsageError: a report of an unknown kind, or one name for two outputs.
    """
    files: tuple[Path | None, ...] = (target, *outputs.texts)
    check_report_name(outputs.report)
    if outputs.sign is not None:
        from onnxprune.graph.signature import check_signing, signature_beside

        check_signing(outputs.sign)
        files = (*files, signature_beside(target))
    if outputs.bom is not None:
        from onnxprune.report.bom import check_bom

        check_bom()
    for path in files:
        check_writable(path, clobber=not outputs.no_clobber)
    check_distinct(files)
    refuse_inputs(files, inputs)


def check_writable(
    path: Path | None, *, inputs: Mapping[str, Iterable[Path]] | None = None, clobber: bool = True
) -> None:
    """Make sure, before any work, that a file can be written.

    Raises:
        OutputError: its folder is missing or closed, it is an input or no regular file, or it exists and must stay.
    """
    if path is None:
        return
    place = real_target(path).parent
    if not place.is_dir():
        raise OutputError(f"'{path}': its folder does not exist; create it or write elsewhere.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"'{path}': its folder cannot be written to; write elsewhere.")
    if not clobber and (path.exists() or path.is_symlink()):
        raise OutputError(f"'{path}' exists and --no-clobber was given; remove it or write elsewhere.")
    refuse_inputs([path], inputs or {})


def check_report_name(path: Path | None) -> None:
    """Make sure that the report is of a known kind.

    Raises:
        UsageError: its suffix is none of .json, .html, .md and .xml.
    """
    if path is not None and path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"--report '{path}': a report is a .json, .html, .md or .xml file.")


def check_distinct(paths: Sequence[Path | None]) -> None:
    """Make sure that no two outputs are the same file.

    Raises:
        UsageError: two are the same.
    """
    named = [os.path.realpath(path) for path in paths if path is not None]
    for index, path in enumerate(named):
        if path in named[:index]:
            raise UsageError(f"'{Path(path).name}' is named for two outputs; give each a name of its own.")


def report_text(path: Path, report: Report) -> str:
    """Return the report as JSON, page, Markdown or JUnit, by the suffix of its file."""
    suffix = path.suffix.lower()
    if suffix == ".html":
        from onnxprune.report.page import to_html

        return to_html(report)
    if suffix == ".md":
        return summary_text(report)
    if suffix == ".xml":
        from onnxprune.report.junit import to_junit

        return to_junit(report)
    return report.to_json()


def summary_text(report: Report) -> str:
    """Return the report as Markdown."""
    from onnxprune.report.markdown import to_markdown

    return to_markdown(report)


def told(outputs: Outputs, report: Report) -> Iterator[tuple[Path, str]]:
    """Yield the files that tell what a job did, with their texts."""
    if outputs.report is not None:
        yield outputs.report, report_text(outputs.report, report)
    if outputs.summary is not None:
        yield outputs.summary, summary_text(report)
    if outputs.bom is not None and report.output is not None:
        from onnxprune.report.bom import to_bom

        yield outputs.bom, to_bom(report)


def write_texts(texts: Mapping[Path | None, str]) -> None:
    """Write text files, all or none; None: not asked for.

    Raises:
        OutputError: one cannot be written; nothing changed.
    """
    with Staging() as staging:
        for path, text in texts.items():
            if path is not None:
                staging.text(path, text)
        staging.commit()


def write_report(path: Path | None, report: Report) -> None:
    """Write the report alone, where it is asked for."""
    if path is not None:
        write_texts({path: report_text(path, report)})
