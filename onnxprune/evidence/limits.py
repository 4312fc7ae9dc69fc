"""GateLimits that a compressed model must keep, on its outputs or on a value that the user measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from onnxprune.option import check_plain, option

if TYPE_CHECKING:
    from onnxprune.evidence.parity import Parity


@dataclass(frozen=True)
class GateLimits:
    """GateLimits; None is no limit. Of several outputs the worst one counts."""

    section: ClassVar[str] = "What the result must keep"

    min_cosine: float | None = option(None, "Least cosine with the original.", metavar="X", least=-1, most=1)
    min_sqnr: float | None = option(None, "Least signal to noise ratio, in dB.", metavar="DB")
    min_agreement: float | None = option(None, "Least top-1 agreement.", metavar="X", least=0, most=1)
    max_drop: float | None = option(None, "Most that the value of --eval may drop.", metavar="X")

    def __post_init__(self) -> None:
        check_plain(self)

    @property
    def needs_outputs(self) -> bool:
        """Tell whether the outputs must be compared."""
        return any(limit is not None for limit in (self.min_cosine, self.min_sqnr, self.min_agreement))

    @property
    def is_active(self) -> bool:
        """Tell whether there is any limit."""
        return self.needs_outputs or self.max_drop is not None

    def failures(self, parity: Mapping[str, Parity | None], drop: float | None) -> list[str]:
        """Return one phrase for each limit that is not kept; what could not be measured does not keep its limit."""
        limits = (
            ("cosine", self.min_cosine, "--min-cosine", "cosine {}"),
            ("sqnr_db", self.min_sqnr, "--min-sqnr", "SQNR {} dB"),
            ("agreement", self.min_agreement, "--min-agreement", "top-1 agreement {}"),
        )
        found = self._not_finite(parity)
        for field, limit, flag, text in limits:
            if limit is None or found:
                continue
            found += _below(measured(field, parity), limit, flag, text)
        if self.max_drop is not None and (drop is None or not drop <= self.max_drop):
            shown = "could not be measured" if drop is None else f"is {drop:.6g}"
            found.append(f"the drop of the evaluated value {shown}, above --max-drop {self.max_drop:g}")
        return found

    def _not_finite(self, parity: Mapping[str, Parity | None]) -> list[str]:
        """Return a phrase for the outputs that hold NaN or infinities: these keep no limit."""
        names = [f"'{name}'" for name, figures in parity.items() if figures is not None and not figures.is_finite]
        if not names or not self.is_active:
            return []
        return [f"output{'s' * (len(names) > 1)} {', '.join(names)}: NaN or infinite values, which keep no limit"]


def measured(field: str, parity: Mapping[str, Parity | None]) -> dict[str, float | None]:
    """Return output -> the figure that a limit on `field` looks at; None where it could not be measured.

    Ids have an agreement; their cosine and SQNR mean nothing, so they are left out where there are other outputs.
    """
    if field == "agreement":
        return _agreements(parity)
    from onnxprune.evidence.kinds import LABELS

    numbers = {name: figures for name, figures in parity.items() if figures is None or figures.kind != LABELS}
    return {name: getattr(figures, field, None) for name, figures in (numbers or parity).items()}


def _agreements(parity: Mapping[str, Parity | None]) -> dict[str, float | None]:
    """Return the agreement of outputs that have classes; if there are none, of those that could have."""
    for field in ("agreement", "top1"):
        values = {name: getattr(figures, field, None) for name, figures in parity.items()}
        found = {name: value for name, value in values.items() if value is not None or parity[name] is None}
        if any(value is not None for value in found.values()):
            return found
    return {name: None for name, figures in parity.items() if figures is None}


def _below(values: Mapping[str, float | None], limit: float, flag: str, text: str) -> list[str]:
    if not values:
        return [f"not judged: no output has a figure for {flag} (there are no scores over classes, or nothing ran)"]
    for name, value in values.items():
        if value is None:
            return [f"not judged: output '{name}' could not be measured for {flag}"]
    worst = min(values, key=lambda name: values[name] or 0.0)
    value = values[worst] or 0.0
    if value >= limit:
        return []
    told = apart(value, limit, 1 if "dB" in text else 4)
    return [f"output '{worst}': {text.format(told)}, below {flag} {limit:g}"]


def apart(value: float, limit: float, digits: int) -> str:
    """Return a number with so many digits behind the point, or as many more as leave it on its side of a limit."""
    told = (f"{value:.{more}f}" for more in range(digits, 12))
    return next((text for text in told if (float(text) < limit) == (value < limit)), f"{value:.12g}")
