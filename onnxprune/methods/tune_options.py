"""What is asked of a search, checked: the options of a prune without its targets, and how the search walks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.options import PruneOptions

UNSAID = ("ratio", "state", "workers", "measure_latency")
"""Nothing of this changes the model."""


@dataclass(frozen=True)
class TuneOptions(PruneOptions):
    """Options of `tune`: those of `PruneOptions` but for its targets.

    step, finest: first and last difference of the share of MACs between candidates.
    state: file that keeps what was measured, so that an interrupted search goes on; removed at the end.
    workers: processes that measure candidates side by side, ahead of the search; the result is the same.
    measure_latency: measure every candidate's latency too, at the end, when nothing else runs.
    """

    step: float = 0.1
    finest: float = 0.02
    state: Path | None = None
    workers: int = 1
    measure_latency: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.state, str):
            object.__setattr__(self, "state", Path(self.state))
        if self.resize_io or self.states:
            raise UsageError("tune compares on the original's inputs and outputs: leave resize_io and states out.")
        if self.drop or self.depth:
            raise UsageError("tune drops no branches: let a prune with drop come first, and tune its result.")
        if self.target is not None or self.ratio is not None or self.ratios:
            raise UsageError("tune looks for the smallest model itself: leave ratio, macs, params, size, latency out.")
        if not 0 < self.finest <= self.step < 1:
            raise UsageError(f"steps {self.step:g} and {self.finest:g}: 0 < finest <= step < 1 is needed.")

    @property
    def prune(self) -> PruneOptions:
        """The options of every candidate."""
        return PruneOptions(**{item.name: getattr(self, item.name) for item in fields(PruneOptions)})

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults and change the model, as JSON data."""
        return {name: value for name, value in super().to_dict().items() if name not in UNSAID}
