"""Latency of whole models on a device, or by a command of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.devices.stopwatch import Stopwatch
from onnxprune.devices.tool_times import read_times
from onnxprune.errors import DataError
from onnxprune.evidence.latency import Timing, timing
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.model import Source, load
from onnxprune.graph.save import save
from onnxprune.types import Array


def timing_of_file(path: Path) -> Timing:
    """Return the times that the file of a benchmark tool holds, see `onnxprune.devices.tool_times`.

    Raises:
        DataError: it cannot be read, or has none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"the times '{path}' cannot be read ({error.strerror or error}).") from error
    try:
        found = read_times(text)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error
    if found.times_ms:
        return timing(found.times_ms)
    return Timing(found.median_ms, found.low_ms, found.high_ms, found.runs)


def timed_there(watch: Stopwatch, models: Sequence[Source], feeds: Mapping[str, Array] | None = None) -> list[Timing]:
    """Return the timing of each model, as the stopwatch has it.

    Args:
        feeds: inputs of all of them, of one sample; None: the device makes some up.

    Raises:
        DeviceError: it does not answer, or says no time.
        ModelError: a model cannot be read.
    """
    files = ((partial(save, load(source)), feeds) for source in models)
    return [timing(times) for times in times_there(watch, files)]


def times_there(
    watch: Stopwatch, files: Iterable[tuple[Callable[[Path], object], Mapping[str, Array] | None]]
) -> list[tuple[float, ...]]:
    """Return the times of each model in ms, all in one batch.

    Args:
        files: what writes a model to a file, and its inputs; None: the device makes some up.
    """
    with scratch_folder() as folder:
        paths = []
        for number, (write, feeds) in enumerate(files):
            paths.append(Path(folder) / f"model{number}.onnx")
            write(paths[-1])
            if feeds is not None:
                np.savez(paths[-1].with_suffix(".npz"), **feeds)  # type: ignore[arg-type]  # numpy types allow_pickle among them
        return watch.times(paths)
