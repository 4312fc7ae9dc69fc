"""Latency where a model will run, as methods ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx

from onnxprune.devices.stopwatch import Stopwatch
from onnxprune.devices.watches import kept_watch
from onnxprune.evidence.elsewhere_bench import times_there
from onnxprune.methods.runtime import Runtime
from onnxprune.types import Array


def stopwatch_of(runtime: Runtime) -> Stopwatch | None:
    """Return what times models elsewhere; None: they are timed here."""
    return kept_watch(
        runtime.device, runtime.latency_command, runtime.latency_timeout, runtime.threads, runtime.provider
    )


def layer_times(watch: Stopwatch, layers: Sequence[tuple[onnx.ModelProto, Mapping[str, Array]]]) -> list[float]:
    """Return the shortest time of small models in ms, all in one batch."""
    files = ((partial(_write, proto), feeds) for proto, feeds in layers)
    return [min(times) for times in times_there(watch, files)]


def _write(proto: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(proto.SerializeToString())
