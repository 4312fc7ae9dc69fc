"""What times models elsewhere, whatever it is: a command of the user or a device."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxprune.errors import DeviceError
from onnxprune.files.shown import one_line

TIMEOUT_SECONDS = 600.0


class Stopwatch(Protocol):
    """Times models where they will run."""

    @property
    def name(self) -> str:
        """What tells it from others, with the version of its runtime where that is known: times are kept under it."""
        ...

    @property
    def calls_each(self) -> bool:
        """Whether every model costs a call of its own."""
        ...

    def times(self, models: Sequence[Path]) -> list[tuple[float, ...]]:
        """Return the times of every model in ms, one or more; inputs of `m.onnx` may stand in `m.npz`.

        Raises:
            DeviceError: it fails, says no time, takes too long, or is not there.
        """
        ...


@dataclass(frozen=True)
class Finished:
    """What a process left: its code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line of its errors, else of what it printed."""
        lines = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return one_line(lines[-1])[:200] if lines else "it said nothing"


def run(command: str | Sequence[str], seconds: float, what: str, content: Path | None = None) -> Finished:
    """Run a command of the user's; at its end, and when it takes too long, nothing that it started is left.

    Args:
        command: words, or a text for the shell. content: a file for its standard input.

    Raises:
        DeviceError: it cannot be started, or takes longer.
    """
    given = content.open("rb") if content is not None else None
    try:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            stdin=given if given is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"{what} cannot be started ({error.strerror or error}).") from error
    finally:
        if given is not None:
            given.close()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what} took longer than {seconds:g} seconds; give it more (latency_timeout).") from None
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left in its group
        process.wait()
    return Finished(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
