"""Whether what a job reads is there, looked at before any work."""

from __future__ import annotations

from pathlib import Path

from onnxprune.errors import DataError, UsageError
from onnxprune.job.job import Job
from onnxprune.job.original import NO_IMAGES
from onnxprune.statistics.image_options import ImageOptions


def check_sources(job: Job) -> None:
    """Look, before any work, whether the files of the data and of the user's function are there.

    Raises:
        DataError: one is not, or the function does not load.
    """
    for option, data in (("--data", job.data), ("--judge-data", job.gates.judge_data)):
        if isinstance(data, str | Path):
            file, colon, _ = str(data).rpartition(":")
            if not Path(data).exists() and not (colon and Path(file).is_file()):
                raise DataError(f"{option} '{data}' does not exist; give .npz, .npy, a folder, or file.py:function.")
    if job.data is None and job.gates.judge_data is None and job.run.images != ImageOptions():
        raise UsageError(NO_IMAGES)
    job.gates.function()
