"""What a command reports: one record, written as JSON, as a page, or shown as text."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

FORMAT = "onnxprune-report"
VERSION = 1


@dataclass(frozen=True)
class Side:
    """One model of a report: `bytes` counts the file and its external data, `macs` multiply-adds for one sample.

    A figure that is not known is None.
    """

    path: str | None
    sha256: str | None = None
    bytes: int | None = None
    params: int | None = None
    macs: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "params": self.params,
            "macs": self.macs,
        }


@dataclass(frozen=True)
class GroupLine:
    """What happened to one group, or why an axis is locked.

    kept: channels that stay; None where nothing was chosen (`inspect`).
    details: further figures of the group: sites, MACs carried, exact, active.
    """

    name: str
    kind: str
    size: int
    kept: int | None = None
    locked: bool = False
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name, the details among them."""
        return {
            "name": self.name,
            "kind": self.kind,
            "size": self.size,
            "kept": self.kept,
            "locked": self.locked,
            "reason": self.reason,
            **self.details,
        }


@dataclass
class Report:
    """The record of one command (DESIGN, section 5).

    parity: output -> cosine, sqnr_db, max_abs, agreement; None where the output could not be compared.
    latency: model -> times in milliseconds.
    seconds: stage -> time that it took.
    details: what one command has to say besides: options, seed, samples, self noise, masked parity, models.
    """

    command: str
    input: Side | None = None
    output: Side | None = None
    groups: list[GroupLine] = field(default_factory=list)
    parity: dict[str, dict[str, float | None] | None] = field(default_factory=dict)
    latency: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage; entered twice, its times add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def warn(self, text: str) -> None:
        """Record a warning once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "command": self.command,
            "input": self.input.to_json() if self.input else None,
            "output": self.output.to_json() if self.output else None,
            "groups": [group.to_json() for group in self.groups],
            "parity": self.parity,
            "latency": self.latency,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "warnings": self.warnings,
            **self.details,
        }

    def to_json(self) -> str:
        """Return the report as JSON; a figure that is NaN or infinite becomes null, with a warning."""
        content, lost = self.to_dict(), list[str]()
        content = _finite(content, "", lost)
        if lost:
            content["warnings"] = [*content["warnings"], f"figures that are no numbers: {', '.join(lost[:5])}"]
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False).translate(_SPELLED) + "\n"


def _finite(value: Any, place: str, lost: list[str]) -> Any:
    """Return plain data with None for every float that is no number; where they stood is added to `lost`."""
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(place)
        return None
    if isinstance(value, dict):
        return {key: _finite(item, f"{place}.{key}" if place else str(key), lost) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, place, lost) for item in value]
    return value


_SPELLED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0xD800, 0xE000))}
"""Control characters that JSON leaves as they are, and halves of surrogate pairs, which no file can hold."""
