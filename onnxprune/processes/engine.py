"""The one place where onnxruntime is imported: without its telemetry, with threads and providers that exist."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from onnxprune.errors import UsageError

THREADS_PER_PROCESSOR = 4
FEWEST_LARGEST = 16


def silence() -> None:
    """Switch telemetry of onnxruntime off, for this process and all that it starts; before its first import.

    From 1.32 on it looks up its maker's host and writes an identity of the device and a database below HOME.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def onnxruntime() -> Any:
    """Return the module onnxruntime."""
    loaded = "onnxruntime" in sys.modules
    import onnxruntime

    if loaded and hasattr(onnxruntime, "disable_telemetry_events"):  # imported by others, maybe before `silence`
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def most_threads() -> int:
    """Return the largest number of threads that makes sense here."""
    return max(FEWEST_LARGEST, THREADS_PER_PROCESSOR * (os.cpu_count() or 1))


def bounded(threads: int | None) -> int:
    """Return a number of threads that the machine can carry; 0 leaves it to onnxruntime."""
    return min(max(threads or 0, 0), most_threads())


def providers(wanted: str | None, available: Sequence[str]) -> list[str]:
    """Return the execution providers to use: the one that is wanted, by its name with or without
    `ExecutionProvider`, in any case; the CPU is always the last resort.

    Raises:
        UsageError: this onnxruntime has no such provider.
    """
    if wanted is None:
        return ["CPUExecutionProvider"]
    short = wanted.lower().removesuffix("executionprovider")
    found = [name for name in available if name.lower().removesuffix("executionprovider") == short]
    if not found:
        names = ", ".join(name.removesuffix("ExecutionProvider") for name in available)
        raise UsageError(f"this onnxruntime has no execution provider '{wanted}'; it has {names}.")
    return list(dict.fromkeys([*found, "CPUExecutionProvider"]))
