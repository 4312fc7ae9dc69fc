"""What a result must keep, and the user's function that measures it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import DataError, UsageError
from onnxprune.evidence.limits import GateLimits, measured
from onnxprune.option import documented, option

if TYPE_CHECKING:
    from onnxprune.evidence.evaluation import Evaluate
    from onnxprune.evidence.parity import Parity


@documented
@dataclass(frozen=True)
class Gates(GateLimits):
    """Quality gates. From Python, the function can be given itself, and data to judge on of any kind.

    strict also fails gates that could be judged on made-up inputs only.
    """

    eval: str | Callable[..., Any] | None = option(
        None,
        "Function of a model path that returns a number; higher is better.",
        metavar="FILE.PY:FUNCTION",
        spelt="text",
    )
    judge_data: Any = option(
        None, "Inputs that the result is judged on [default: one in four of --data].", metavar="PATH", spelt="text"
    )
    strict: bool | None = option(
        None, "Fail where the result is far from the original, whatever was asked [default: where CI is set]."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_drop is not None and self.eval is None:
            raise UsageError("max_drop needs eval: file.py:function, which measures what may drop (--eval).")
        if isinstance(self.eval, str) and not self.eval.rpartition(":")[0].endswith(".py"):
            raise UsageError(f"eval '{self.eval}': give file.py:function.")

    @property
    def is_strict(self) -> bool:
        """Tell whether a result that is far from the original fails."""
        if self.strict is not None:
            return self.strict
        return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")

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


def limits_of(gates: GateLimits) -> dict[str, Any]:
    """Return the limits that are set, by name."""
    names = [item.name for item in fields(GateLimits)]
    return {name: value for name in names if (value := getattr(gates, name)) is not None}


def kept(gates: GateLimits, parity: Mapping[str, Parity | None], drop: float | None) -> list[dict[str, object]]:
    """Return every limit with the worst value that was found, and whether it is held, as JSON data."""
    figures = {"min_cosine": "cosine", "min_sqnr": "sqnr_db", "min_agreement": "agreement"}
    lines = []
    for name, limit in limits_of(gates).items():
        alone = GateLimits(**{name: limit})
        values = [*measured(figures[name], parity).values()] if name in figures else [drop]
        known = [value for value in values if value is not None]
        worst = min(known, default=None)
        lines.append({"name": name, "limit": limit, "value": worst, "held": not alone.failures(parity, drop)})
    return lines
