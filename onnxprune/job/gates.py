"""What a result must keep, and the user's function that measures it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxprune.errors import DataError, UsageError
from onnxprune.validate import gates as limits
from onnxprune.validate.gates import Evaluate


@dataclass(frozen=True)
class Gates(limits.Gates):
    """Quality gates.

    eval: function of a model path that returns a number, higher is better, or `file.py:function`; `max_drop` is about
        its value.
    """

    eval: str | Evaluate | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.eval is None:
            raise UsageError("max_drop needs eval: file.py:function, which measures what may drop (--eval).")
        if isinstance(self.eval, str) and not self.eval.rpartition(":")[0].endswith(".py"):
            raise UsageError(f"eval '{self.eval}': give file.py:function.")

    @property
    def active(self) -> bool:
        """Tell whether there is any limit."""
        return self.needs_outputs or self.max_drop is not None

    @property
    def evaluation(self) -> str:
        """How the user is told of the function."""
        return self.eval if isinstance(self.eval, str) else str(getattr(self.eval, "__name__", "function"))

    def function(self) -> Evaluate | None:
        """Return the user's function, loaded; None without one.

        Raises:
            DataError: its file does not load or has no such function.
        """
        if not isinstance(self.eval, str):
            return self.eval
        from onnxprune.statistics.sources import FileFunction

        file, _, name = self.eval.rpartition(":")
        if not Path(file).is_file():
            raise DataError(f"eval '{self.eval}': there is no file '{file}'; give file.py:function.")
        found = FileFunction(Path(file), name)
        _ = found.function  # what is wrong with it is told now, not in the middle of a search
        return found


def limits_of(gates: limits.Gates) -> dict[str, Any]:
    """Return the limits that are set, by name."""
    names = [item.name for item in fields(limits.Gates)]
    return {name: value for name in names if (value := getattr(gates, name)) is not None}
