"""Options of whatever removes channels: how attention is seen, and what is done about what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError
from onnxprune.option import Options, option

MODES = ("none", "bias", "lstsq", "distil")
"""Nothing; mean and variance of every output channel; all weights; all weights, then gradient steps."""
SUBSTITUTES = ("none", "bias", "scale", "linear")
SUBSTITUTE = (
    "What takes the place of a dropped branch, fitted to the data: nothing, a bias or a factor and a bias for each "
    "channel, one linear map [default: what repairs most for its time]."
)
EFFORT = (
    "How long gradient steps go on: none, a fixed budget, as long as held-out samples get better, or a time (90s, 30m, "
    "2h) [default: default]."
)
SELECT = "Fit to the K samples of --data that say most, out of all of them [default: the first 512, or --samples]."
MOST_STEPS = 1_000_000
"""More gradient steps than this are a mistake: they would take days even on a small network."""
EFFORTS = "quick|default|thorough|TIME"


@dataclass(frozen=True, kw_only=True)
class CompensateOptions(Options):
    """Part of the options of a method."""

    section: ClassVar[str] = "How it is done"

    heads: bool | None = option(None, "Whole attention heads [default: where attention is recognised].")
    head_dim: bool | None = option(None, "Positions inside heads [default: where heads are not].")
    input_shapes: Mapping[str, tuple[int, ...]] = option(dict, "Input -> full shape, where dynamic sizes are fixed.")
    compensate: str | None = option(
        None,
        "Change what stays so that it gives what the original gave on --data: mean and variance of each channel, a "
        "least-squares refit, or gradient steps after it; without --data on made-up inputs, which is weaker [default: "
        "distil with --data, lstsq for large networks and without data].",
        choices=MODES,
    )
    steps: int | None = option(
        None, "Gradient steps [default: up to 1200, by size].", metavar="N", least=1, most=MOST_STEPS
    )
    effort: str | None = option(None, EFFORT, metavar=EFFORTS)
    memory: int | None = option(
        None, "Bytes that statistics, and then the refit, may take [default: 2GB, 4GB].", least=1, untold=True
    )
    seed: int = option(0, "Seed of what is drawn by chance [default: 0].", least=0)
    select: int | None = option(None, SELECT, metavar="K", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_effort(self.effort, self.compensate, self.steps)

    @property
    def wanted_effort(self) -> Effort | None:
        """The effort, read."""
        return None if self.effort is None else Effort.of(self.effort)


def check_effort(effort: str | None, compensate: str | None = None, steps: int | None = None) -> None:
    """Refuse an effort that is none, or says something else than other options.

    Raises:
        UsageError: it is none, or contradicts them.
    """
    if steps is not None and compensate not in (None, "distil"):
        raise UsageError(f"steps {steps} are gradient steps, compensate {compensate} takes none; leave one out.")
    if effort is None:
        return
    found = Effort.of(effort)
    if steps is not None and found.word != "default":
        raise UsageError(f"effort {effort} and steps {steps} both say how many steps to take; leave one out.")
    if found.word == "quick" and compensate == "distil":
        raise UsageError("effort quick takes no gradient steps, compensate distil does; leave one out.")
    if found.is_long and compensate not in (None, "distil"):
        raise UsageError(f"effort {effort} is for gradient steps, compensate {compensate} takes none; leave one out.")


def require_data(effort: str | None, data: object, select: int | None = None) -> None:
    """Refuse what needs inputs without any: steps towards what the original gives on noise help nobody.

    Raises:
        UsageError: there are none.
    """
    if select is not None and data is None:
        raise UsageError(f"select {select} chooses among inputs of the model: give data.")
    if effort is not None and data is None and Effort.of(effort).is_long:
        raise UsageError(f"effort {effort} needs inputs of the model: give data.")
