"""What is asked of a search, checked: the options of a prune without its targets, and how the search walks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from onnxprune.errors import UsageError
from onnxprune.methods.candidate_options import CandidateOptions
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.option import documented, option

STEP: dict[str, Any] = {"metavar": "R", "least": 0, "most": 1, "open": "<>"}
REFUSED = {
    **dict.fromkeys(
        ("ratio", "macs", "params", "size", "latency", "ratios"),
        "tune looks for the smallest model itself: leave ratio, macs, params, size, latency out.",
    ),
    **dict.fromkeys(
        ("resize_io", "states"), "tune compares on the original's inputs and outputs: leave resize_io and states out."
    ),
    **dict.fromkeys(
        ("depth", "substitute"),
        "tune looks for widths: name branches that go with drop (prune with depth and a target finds them).",
    ),
}
"""Options of a prune that make no sense here, with the reason."""


@documented
@dataclass(frozen=True, kw_only=True)
class TuneOptions(CandidateOptions):
    """Options of `tune`."""

    section: ClassVar[str] = "How the search goes"

    step: float = option(0.1, "First step, as a share of the MACs [default: 0.1].", **STEP)
    finest: float = option(0.02, "Last step, halved down to [default: 0.02].", **STEP)
    workers: int = option(1, "Processes that measure candidates ahead.", metavar="N", least=1, most=256, untold=True)
    measure_latency: bool = option(False, "Measure the latency of every candidate too.", flag="--latency", untold=True)
    state: Path | None = option(
        None, "Keeps the search [default: OUTPUT.tune.json].", metavar="FILE", beside="tune.json", untold=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.finest <= self.step < 1:
            raise UsageError(f"steps {self.step:g} and {self.finest:g}: 0 < finest <= step < 1 is needed.")

    @classmethod
    def refusal(cls, name: str) -> str | None:
        return REFUSED.get(name)

    @property
    def prune(self) -> PruneOptions:
        """The options of every candidate."""
        return PruneOptions(**{item.name: getattr(self, item.name) for item in fields(CandidateOptions)})
