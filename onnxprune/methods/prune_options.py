"""What is asked of a prune, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from onnxprune.allocate.ratios import checked_ratios, read_ratios
from onnxprune.errors import UsageError
from onnxprune.methods.candidate_options import CandidateOptions
from onnxprune.methods.compensate_options import SUBSTITUTE, SUBSTITUTES
from onnxprune.option import documented, option

DEFAULT_RATIO = 0.4
LEAST_BYTES = 64
"""Of a peak that is asked for: less is a mistake."""
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
TARGETS = ("macs", "params", "size", "latency", "peak_memory")
SCOPES = ("uniform", "global", "sensitivity")
LEFT: dict[str, Any] = {"metavar": "R", "least": 0, "most": 1, "open": "<"}


@documented
@dataclass(frozen=True, kw_only=True)
class PruneOptions(CandidateOptions):
    """Options of `prune`. At most one target; without one and without `ratios` it is `ratio=0.4`.

    With scope "global" a ratio is that of all groups together. Patterns are globs over node, tensor or group names.
    A state that is fed back shrinks on both sides.
    """

    section: ClassVar[str] = "How much goes"

    ratio: float | None = option(None, "Share of the channels removed in every group [default: 0.4].", metavar="R")
    macs: float | None = option(None, "Share of the multiply-adds that is left.", **LEFT)
    params: float | None = option(None, "Share of the parameters that is left.", **LEFT)
    size: float | None = option(None, "Share of the bytes of the file that is left.", **LEFT)
    latency: float | str | None = option(
        None,
        "Share of the time of one sample that is left, or that time (5ms), as measured here or on --device.",
        metavar="R|TIMEms",
        spelt="latency",
    )
    peak_memory: str | None = option(
        None,
        "Share of the peak of the activations that is left, or its bytes (200KB), of one sample as onnxruntime plans "
        "it.",
        metavar="SHARE|BYTES",
        keyword="str | float | None",
    )
    scope: str | None = option(
        None,
        "All groups lose the same share, one threshold decides for all, or errors measured on --data against what a "
        "width saves [default: sensitivity for a target with --data, else uniform].",
        choices=SCOPES,
    )
    ratios: Mapping[str, float] = option(
        dict,
        "JSON table of name patterns and ratios.",
        metavar="FILE",
        flag="--group-ratios",
        spelt="file",
        keyword="Mapping[str, float] | str | Path",
    )
    experts: str | None = option(
        None,
        "Experts of every mixture that are left: how many (4), or their share (0.5); a prune without a target cuts no "
        "more.",
        metavar="N|SHARE",
        keyword="str | int | float | None",
    )
    depth: bool | None = option(
        None, "With --data and a target: branches go as well as widths, where that loses less [default: no]."
    )
    substitute: str | None = option(None, SUBSTITUTE, choices=SUBSTITUTES)
    resize_io: tuple[str, ...] = option(
        (),
        "These inputs and outputs may shrink with the channels inside, a state that is fed back on both sides "
        "(repeatable).",
        metavar="PATTERN",
    )
    states: tuple[str, ...] = option(
        (),
        "An output is fed to an input in the next call, which their names do not show; both may shrink.",
        metavar="OUT=IN",
        flag="--state",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Mapping[str, float] | str | Path = self.ratios
        table = read_ratios(given) if isinstance(given, str | Path) else checked_ratios(given, "ratios")
        object.__setattr__(self, "ratios", table)
        if self.experts is not None:
            read_experts(self.experts)
        self._check_target()
        if self.latency is not None and (self.resize_io or self.states):
            raise UsageError("latency is measured on the original's inputs, which change here; give macs instead.")
        if self.peak_memory is not None and (self.drop or self.depth or self.resize_io or self.states):
            raise UsageError("peak_memory goes with widths alone: leave drop, depth, resize_io and states out.")
        if self.depth and self.budget is None:
            raise UsageError("depth spends a budget: give macs, params, size or latency instead of a ratio.")
        if self.depth and (self.resize_io or self.states):
            raise UsageError("depth compares outputs with the original's, which change here: leave one of them out.")
        if self.scope == "sensitivity" and self.budget is None:
            raise UsageError(
                "scope 'sensitivity' spends a budget: give macs, params, size or latency instead of a ratio."
            )

    @property
    def budget(self) -> tuple[str, float] | None:
        """Name and share of what is to be left, of the peak of memory also its bytes; None: a ratio is asked for."""
        if self.peak_memory is not None:
            return "peak_memory", read_amount(self.peak_memory)
        return next(((name, getattr(self, name)) for name in TARGETS if getattr(self, name) is not None), None)

    @property
    def level(self) -> float:
        """The ratio of groups that have none of their own."""
        return (
            self.ratio if self.ratio is not None else 0.0 if self.ratios or self.drop or self.experts else DEFAULT_RATIO
        )

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data."""
        level = {"ratio": self.level} if self.budget is None and not self.ratios else {}
        return {**level, **super().to_dict()}

    def _check_target(self) -> None:
        given = [name for name in ("ratio", *TARGETS) if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given; a prune has one target, leave the others out.")
        if self.peak_memory is not None:
            read_amount(self.peak_memory)
        for name in given:
            if name == "peak_memory":
                continue
            value = getattr(self, name)
            if name == "latency" and isinstance(value, str):
                milliseconds_of(value)
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{name} {value!r} is no number.")
            if name == "ratio" and not 0 <= value < 1:
                raise UsageError(f"ratio {value:g} is outside [0, 1); it is the share of the channels removed.")
            if name != "ratio" and not 0 < value <= 1:
                raise UsageError(f"{name} {value:g} is outside (0, 1]; it is the share of the original that is left.")


def milliseconds_of(text: str) -> float:
    """Return the milliseconds of a latency like `5ms` or `2.5 ms`.

    Raises:
        UsageError: it is none.
    """
    number = text.strip().lower().removesuffix("ms").strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not text.strip().lower().endswith("ms") or not 0 < value < float("inf"):
        raise UsageError(f"latency '{text}': give a share of the original's (0.6), or a time in milliseconds (5ms).")
    return value


def read_experts(given: object) -> int | float:
    """Return a number of experts (4), or a share of them up to 1 (0.5, 1.0).

    Raises:
        UsageError: it is neither.
    """
    text = str(given).strip()
    try:
        value = int(text) if text.isdecimal() else float(text)
    except ValueError:
        value = float("nan")
    if isinstance(given, bool) or not (value >= 1 if isinstance(value, int) else 0 < value <= 1):
        raise UsageError(f"experts '{given}': give how many are left (4), or their share up to 1 (0.5).")
    return value


def read_amount(text: str) -> float:
    """Return a share in (0, 1], or bytes, of a text such as 0.5, 200KB, 1.5MB.

    Raises:
        UsageError: it is neither.
    """
    word = str(text).strip().upper()
    unit = word.removesuffix("B")[-1:] if word.removesuffix("B")[-1:] in ("K", "M", "G") else ""
    try:
        number = float(word.removesuffix("B").removesuffix(unit)) * UNITS[unit]
    except ValueError:
        number = float("nan")
    is_share = number <= 1 and not unit and not word.endswith("B")
    if not 0 < number < float("inf") or not (is_share or number >= LEAST_BYTES):
        raise UsageError(f"peak_memory '{text}': give a share of the original's up to 1, or bytes (200KB, 1.5MB).")
    return number
