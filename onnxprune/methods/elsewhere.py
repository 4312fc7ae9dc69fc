"""Latency where a model will run, as methods ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnxprune.devices.stopwatch import Stopwatch
from onnxprune.devices.watches import kept_watch
from onnxprune.evidence.elsewhere_bench import timed_there
from onnxprune.evidence.latency import Timing
from onnxprune.files.scratch import scratch_folder
from onnxprune.graph.model import Model
from onnxprune.methods.runtime import Runtime
from onnxprune.types import Array


def stopwatch_of(runtime: Runtime) -> Stopwatch | None:
    """Return what times models elsewhere; None: they are timed here."""
    return kept_watch(
        runtime.device, runtime.latency_command, runtime.latency_timeout, runtime.threads, runtime.provider
    )


def timings_there(watch: Stopwatch, models: Sequence[Model], feeds: Mapping[str, Array] | None) -> list[Timing]:
    """Return the timing of each model there."""
    return timed_there(watch, models, feeds)


def layer_times(watch: Stopwatch, layers: Sequence[tuple[onnx.ModelProto, Mapping[str, Array]]]) -> list[float]:
    """Return the shortest time of small models in ms, all in one batch."""
    with scratch_folder() as folder:
        paths = []
        for number, (proto, feeds) in enumerate(layers):
            paths.append(Path(folder) / f"layer{number}.onnx")
            paths[-1].write_bytes(proto.SerializeToString())
            np.savez(paths[-1].with_suffix(".npz"), **feeds)  # type: ignore[arg-type]  # numpy types allow_pickle among them
        return [min(times) for times in watch.times(paths)]
