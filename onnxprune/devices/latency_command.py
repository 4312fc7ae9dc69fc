"""A command of the user's that runs a model and prints one or more times.

`CMD {model}` is called for each model; `CMD {models}` once for many, and prints a line for each, in their order. What
the benchmark tools of runtimes print is understood (`onnxprune.devices.tool_times`).
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxprune.devices.stopwatch import TIMEOUT_SECONDS, run
from onnxprune.devices.tool_times import plain_times, read_times
from onnxprune.errors import DataError, DeviceError, UsageError
from onnxprune.files.shown import one_line

ONE, MANY = "{model}", "{models}"


def check_command(command: str) -> None:
    """Refuse a command that gets no model.

    Raises:
        UsageError: it has no place for one.
    """
    if (ONE in command) == (MANY in command):
        raise UsageError(f"latency_command '{command}': say where the model goes, with {ONE} or, for many, {MANY}.")


@dataclass(frozen=True)
class LatencyCommand:
    """Times models by a command of the shell; the same model is not run twice."""

    command: str
    seconds: float = TIMEOUT_SECONDS
    _known: dict[str, tuple[float, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The command; what runtime it calls is not known."""
        return f"command {self.command}"

    @property
    def calls_each(self) -> bool:
        """Whether every model costs a call."""
        return MANY not in self.command

    def times(self, models: Sequence[Path]) -> list[tuple[float, ...]]:
        """Return the times of every model in ms.

        Raises:
            DeviceError: it fails, prints no time, or takes too long.
        """
        from onnxprune.graph.model import file_sha256

        marks = [file_sha256(model) for model in models]
        new = {mark: model for mark, model in zip(marks, models, strict=True) if mark not in self._known}
        if new and self.calls_each:
            for mark, model in new.items():
                self._known[mark] = self._one(model)
        elif new:
            self._known.update(zip(new, self._many(list(new.values())), strict=True))
        return [self._known[mark] for mark in marks]

    def _one(self, model: Path) -> tuple[float, ...]:
        out = self._said(ONE, [model])
        try:
            found = read_times(out)
        except DataError as error:
            raise DeviceError(f"the latency command printed '{_start(out)}': {error}") from error
        return found.times_ms or (found.median_ms,)

    def _many(self, models: Sequence[Path]) -> list[tuple[float, ...]]:
        out = self._said(MANY, models)
        lines = [tuple(times) for line in out.splitlines() if (times := plain_times(line))]
        if len(lines) != len(models) or not all(0 < time < math.inf for times in lines for time in times):
            raise DeviceError(
                f"the latency command printed {len(lines)} lines with times for {len(models)} models "
                f"('{_start(out)}'); with {MANY} it prints a line for each."
            )
        return lines

    def _said(self, place: str, models: Sequence[Path]) -> str:
        words = " ".join(shlex.quote(str(model)) for model in models)
        said = run(self.command.replace(place, words), self.seconds, "the latency command")
        if said.code:
            raise DeviceError(f"the latency command failed with exit code {said.code}: {said.last_line}")
        return said.out


def _start(text: str) -> str:
    return one_line(text.strip())[:80]
