"""Stages of a job: measured for the report, and told to whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from onnxprune.graph.model import Model
from onnxprune.report import Report

Progress = Callable[[str], None]
Stage = Callable[[Report, str, str], AbstractContextManager[Progress]]
"""Measures a stage of the work, by its name in the report and a text for people; what is yielded changes the text."""
Check = Callable[[Path | Model], None]
Deliver = Callable[[Model, Model, Check], None]
"""Writes (result, original, check): the check raises where the result must not get its name."""


@contextmanager
def unseen(report: Report, name: str, text: str) -> Iterator[Progress]:
    """Measure a stage that nobody watches."""
    with report.stage(name):
        yield lambda text: None


def told(progress: Progress | None) -> Stage:
    """Return stages that tell a function what is being done."""

    @contextmanager
    def stage(report: Report, name: str, text: str) -> Iterator[Progress]:
        with report.stage(name):
            (progress or (lambda text: None))(text)
            yield progress or (lambda text: None)

    return stage
