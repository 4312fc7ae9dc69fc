"""Energy that the processor counted, where the machine lets one read its counters.

Linux shows the running average power limit counters of Intel and AMD processors as folders of
/sys/class/powercap, one for each package, its cores and its memory. A counter is in microjoules and
starts again from 0 behind `max_energy_range_uj`; since 2020 it is readable by root alone unless somebody allowed more.
Source: the Linux kernel's documentation, power/powercap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")
"""A zone or a part of it; the same counters under another interface (intel-rapl-mmio:0) are left out."""
PACKAGE, MEMORY = "package", "dram"
"""What is counted: cores and graphics are parts of their package, a platform (psys) holds all of it again."""


@dataclass(frozen=True)
class Counter:
    """One counter. name: as the kernel calls it. folder: where it stands. range_uj: the largest number it shows."""

    name: str
    folder: Path
    range_uj: int

    def read(self) -> int:
        """Return microjoules since some moment.

        Raises:
            OSError, ValueError: it cannot be read any more.
        """
        return _number(self.folder / "energy_uj")


@dataclass
class EnergyMeter:
    """Adds up what counters show, over their wraps as long as it is read more often than these happen.

    (A package of 100 W goes around in 40 minutes or more.)
    """

    counters: tuple[Counter, ...]
    microjoules: int = 0
    _last: list[int] = field(default_factory=list)

    @property
    def names(self) -> str:
        """What is counted, for reports."""
        return " + ".join(dict.fromkeys(counter.name for counter in self.counters))

    def read(self) -> float:
        """Return the joules since the first reading.

        Raises:
            OSError, ValueError: a counter cannot be read any more.
        """
        now = [counter.read() for counter in self.counters]
        if self._last:
            steps = zip(now, self._last, self.counters, strict=True)
            self.microjoules += sum(rise(new, old, counter.range_uj) for new, old, counter in steps)
        self._last = now
        return self.microjoules * 1e-6


def rise(now: int, before: int, range_uj: int) -> int:
    """Return by how much a counter rose that starts again behind its range."""
    return now - before if now >= before else now + range_uj - before


def energy_meter(root: Path | None = None) -> EnergyMeter | None:
    """Return a meter of all packages and their memory; None where nothing is there, or not to be read.

    Args:
        root: folder of the counters (tests have their own); None: the kernel's.
    """
    found = _counters(root or ROOT)
    return EnergyMeter(found) if any(counter.name.startswith(PACKAGE) for counter in found) else None


def _counters(root: Path) -> tuple[Counter, ...]:
    try:
        folders = sorted(folder for folder in root.iterdir() if _ZONE.fullmatch(folder.name))
    except OSError:
        return ()
    return tuple(counter for folder in folders if (counter := _counter(folder)) is not None)


def _counter(folder: Path) -> Counter | None:
    """Return a counter that can be read, and that no other one holds."""
    try:
        name = (folder / "name").read_text().strip()
        counter = Counter(name, folder, _number(folder / "max_energy_range_uj"))
        counter.read()
    except (OSError, ValueError):
        return None
    return counter if name.startswith(PACKAGE) or name == MEMORY else None


def _number(path: Path) -> int:
    return int(path.read_text().strip())
