"""Options that a prune and a search for one have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from onnxprune.errors import UsageError
from onnxprune.hardware.target import PRECISIONS, target_named, target_names
from onnxprune.methods.compensate_options import CompensateOptions
from onnxprune.option import option


def criteria() -> Iterable[str]:
    """Return the names of all criteria."""
    from onnxprune.score.spelled import spelled_names

    return spelled_names()


LARGEST_SIGMA = 10
"""Of the logarithm of scores: beyond it nothing is left of them."""
DROP = "Residual branches that go, by the names that inspect lists (repeatable); a prune without a target cuts no more."


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(CompensateOptions):
    """Which groups are cut, in which order, and how narrow they get."""

    section: ClassVar[str] = "Which channels go"

    score: str | None = option(
        None,
        "How much a channel matters [default: curvature with --data, lstsq where derivatives are missing or would take "
        "long; l2 without data].",
        metavar="NAME",
        listed=criteria,
    )
    randomize: float | None = option(
        None,
        "Change scores by chance, by so much of themselves (0.1: about a tenth), drawn by the seed: what the model "
        "lost cannot be told from its weights.",
        metavar="SIGMA",
        least=0,
        most=LARGEST_SIGMA,
        open="<",
    )
    align: int | None = option(
        None,
        "Keep multiples of N channels [default: 8 in groups of 32 or more, 16 from 128]; 1 turns it off.",
        metavar="N",
        least=1,
        most=4096,
    )
    target: str | None = option(
        None, "What the result will run on: widths are those that it is fast with.", metavar="NAME", listed=target_names
    )
    precision: str | None = option(
        None,
        "Numbers that the result will compute in, which widths depend on [default: those of the model; int8 where a "
        "later step of the recipe quantizes].",
        choices=PRECISIONS,
    )
    min_channels: int = option(1, "Least that a group keeps.", metavar="N", least=1)
    tie_blocks: bool = option(False, "Groups of the same shape keep the same number (sensitivity).")
    skip: tuple[str, ...] = option((), "Leave nodes, tensors or groups alone (repeatable).", metavar="PATTERN")
    only: tuple[str, ...] = option((), "Prune nothing but these (repeatable).", metavar="PATTERN")
    drop: tuple[str, ...] = option((), DROP, metavar="BRANCH")
    exact_only: bool = option(False, "Prune only where removing equals zeroing (no LayerNorm over it).")
    stats: Path | None = option(
        None,
        "Statistics that onnxprune stats collected: scores, and without --data the refit, come from them.",
        metavar="FILE",
        untold=True,
    )
    cut_unfitted: bool = option(
        False,
        "With --data, cut too what no refit makes up for: channels read by operators that it does not know, branches "
        "that no sample takes.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.score is not None:
            from onnxprune.score.criteria import find

            find(self.score)
        if self.randomize is not None and not 0 < self.randomize <= LARGEST_SIGMA:
            raise UsageError(f"randomize {self.randomize!r}: give a number above 0, at most {LARGEST_SIGMA}.")
        if self.target is not None:
            target_named(self.target)
