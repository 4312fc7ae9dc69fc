"""How much may be spent on bringing back what a compression lost, as users say it: one word, or a time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxprune.errors import UsageError

WORDS = ("quick", "default", "thorough")
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
LONGEST = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Effort:
    """An effort.

    word: "quick" (closed form only), "default" (a fixed budget, the same on every machine), "thorough" (as long as
        samples that are held out get better) or "time".
    seconds: of the clock, for "time".
    """

    word: str
    seconds: float | None = None

    @property
    def is_long(self) -> bool:
        """Whether it asks for more than the fixed budget."""
        return self.word in ("thorough", "time")

    @staticmethod
    def of(text: str) -> Effort:
        """Return what a text says.

        Raises:
            UsageError: it is neither a known word nor a time.
        """
        if text in WORDS:
            return Effort(text)
        found = _TIME.fullmatch(text) if isinstance(text, str) and text else None
        if found is None:
            raise UsageError(f"effort '{text}': give {', '.join(WORDS)}, or a time such as 90s, 30m, 2h or 1h30m.")
        seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
        if not 0 < seconds <= LONGEST:
            raise UsageError(f"effort '{text}': give a time above 0 and below {LONGEST / 86400:.0f} days.")
        return Effort("time", seconds)


def shown(seconds: float) -> str:
    """Return a time in a few characters: 45 s, 12 min, 1.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
