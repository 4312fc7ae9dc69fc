"""How much memory a command may take: measured from outside, as native libraries take theirs unasked."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onnxprune.processes import journal

DEFAULT_BYTES = 4 << 30
"""What --memory is where nothing was said."""

ROOM_BYTES = 4 << 30
"""For activations, sessions and the libraries, besides what --memory is about."""

MODEL_TIMES, DATA_TIMES = 16, 4
"""So many copies of the largest model and of the data may exist: as read, changed, masked, serialised, in sessions."""


@dataclass(frozen=True)
class Limit:
    """Bytes that may be taken (0: no limit), and how people are told of it."""

    bytes: int = 0
    told: str = ""

    @staticmethod
    def read(text: str) -> Limit:
        """Return the limit of a note."""
        size, _, told = text.partition(" ")
        return Limit(int(size), told)


@dataclass
class _Counted:
    """What the limit of this process follows from."""

    model: int = 0
    data: int = 0
    given: int | None = None


_counted = _Counted()


def allow(*, model: int = 0, data: int = 0, given: int | None = None) -> Limit:
    """Bound what this command may take by what it has read so far, where it is watched, and return the bound.

    Args:
        model, data: bytes of what was just read.
        given: what the user gives for --memory.
    """
    _counted.model, _counted.data = max(_counted.model, model), max(_counted.data, data)
    _counted.given = given or _counted.given
    limit = limit_of(_counted.model, _counted.data, _counted.given)
    journal.note("limit", f"{limit.bytes} {limit.told}")
    return limit


def limit_of(model: int, data: int, given: int | None) -> Limit:
    """Return the bound for a model and data of so many bytes."""
    base = (given or DEFAULT_BYTES) + ROOM_BYTES
    size = base + MODEL_TIMES * model + DATA_TIMES * data
    return Limit(size, f"the {size / (1 << 30):.1f} GB that such a model is given (a larger --memory allows more)")


def taken(process: int) -> int:
    """Return the bytes of memory of a process and those it started, without files that are mapped; 0 if unknown."""
    total, waiting = 0, [process]
    while waiting:
        number = waiting.pop()
        with suppress(OSError, ValueError):
            total += _anonymous(Path(f"/proc/{number}/status").read_text(encoding="utf-8", errors="replace"))
            for children in Path(f"/proc/{number}/task").glob("*/children"):
                waiting += [int(child) for child in children.read_text().split()]
    return total


def is_limited() -> bool:
    """Tell whether the address space or the data of this process are limited from outside."""
    if sys.platform == "win32":
        return False
    import resource

    kinds = [getattr(resource, name) for name in ("RLIMIT_AS", "RLIMIT_DATA") if hasattr(resource, name)]
    return any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in kinds)


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error, or one behind it, says that memory could not be had."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        text = str(current)
        if isinstance(current, MemoryError) or any(sign in text for sign in _SIGNS):
            return True
        if isinstance(current, OSError) and current.errno in (12,):  # ENOMEM
            return True
        current = current.__cause__ or current.__context__
    return False


_SIGNS = (
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "can't start new thread",
    "Unable to allocate",
    "cannot allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "pthread_create failed",
    "array is too big",
    "Maximum allowed dimension exceeded",
)
"""What onnxruntime, numpy, Python and the C library say."""


def _anonymous(status: str) -> int:
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    size = lines.get("RssAnon") or lines.get("VmRSS") or "0 kB"
    return int(size.split()[0]) * 1024
