"""Which stopwatch is asked for: a command, a device, or none."""

from __future__ import annotations

import functools
from numbers import Real

from onnxprune.devices.latency_command import LatencyCommand, check_command
from onnxprune.devices.ssh_device import SshDevice, read_place
from onnxprune.devices.stopwatch import TIMEOUT_SECONDS, Stopwatch
from onnxprune.errors import UsageError
from onnxprune.option import check_text


def check_watch(device: str | None, command: str | None, seconds: float | None = None) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: both are given, the time is none, or one is not spelled as it must be.
    """
    if device is not None and command is not None:
        raise UsageError("device and latency_command both say where models are timed; give one.")
    if seconds is not None and not (isinstance(seconds, Real) and 0 < seconds < float("inf")):
        raise UsageError(f"latency_timeout {seconds}: give seconds, above 0.")
    if device is not None:
        check_text("device", device)
        read_place(device)
    if command is not None:
        check_text("latency_command", command)
        check_command(command)


def watch_of(
    device: str | None, command: str | None, seconds: float | None = None, threads: int = 0, provider: str | None = None
) -> Stopwatch | None:
    """Return what times models elsewhere; None: they are timed here.

    Raises:
        UsageError: see `check_watch`.
    """
    check_watch(device, command, seconds)
    limit = TIMEOUT_SECONDS if seconds is None else seconds
    if command is not None:
        return LatencyCommand(command, limit)
    return SshDevice(read_place(device), limit, threads, provider) if device is not None else None


kept_watch = functools.cache(watch_of)
"""The same stopwatch for the same question: what one search has measured, its next try need not ask again."""
