"""Why channels stay: locks by reason, and what a user can do about each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from onnxprune.report.record import GroupLine, Report
from onnxprune.report.section import Section, Table

EXAMPLES = 3
NOTHING = "Nothing: the operator needs it this way."
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"is an output of the model",
        "onnxprune trim takes away outputs that are not needed; --resize-io lets it shrink.",
    ),
    (r"is an input of the model|graph input", "--resize-io lets it shrink with the channels inside."),
    (r"state of a cache|fed back", "--resize-io, with --state OUT=IN, lets a state shrink on both sides."),
    (r"no rule for this operator|no rule", "Fold or replace the operator, or report it: a rule is one function."),
    (r"defect in its rule|says nothing about", "This is a defect of onnxprune: please report it with the model."),
    (r"computed from data|depend on dynamic sizes|dynamic", "Give --input-shape, or export with fixed sizes."),
    (r"nothing competes with it", "Nothing: an axis needs two channels that can stand for each other."),
    (r"packed|zero points share bytes|blocks of one scale", "Prune the float model first, then quantize it."),
    (r"chosen by data|addressed by data|looked up by", "Nothing here: positions are picked while the model runs."),
    (r"nothing writes it", "onnxprune trim takes away inputs and constants that are not needed."),
    (r"kernels need head sizes", "Prune whole heads instead (--heads)."),
    (r"no refit|does not know|no sample takes", "--cut-unfitted cuts it too; look at the verdict then."),
    (r"skip|only", "It was left out by --skip or --only."),
)
"""Pattern of a reason -> what helps, the first that fits."""


def advice(reason: str) -> str:
    """Return what a user can do about a reason."""
    return next((text for pattern, text in ADVICE if re.search(pattern, reason)), NOTHING)


def kinds(locks: Sequence[GroupLine]) -> list[list[GroupLine]]:
    """Return locks by reason, those that hold most first; reasons that differ in names only are one."""
    found: dict[str, list[GroupLine]] = {}
    for lock in locks:
        reason = re.sub(r"^[^:]*: ", "", re.sub(r"'[^']*'", "''", lock.reason or "unknown"))
        found.setdefault(reason, []).append(lock)
    return sorted(found.values(), key=lambda group: -sum(lock.size for lock in group))


def reasons(report: Report) -> Iterator[Section]:
    """Show every reason with what it holds, where, and what helps."""
    locks = [group for group in report.groups if group.locked]
    if not locks:
        return
    rows = []
    for group in kinds(locks):
        names = list(dict.fromkeys(lock.name for lock in group))
        more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
        reason = group[0].reason or "unknown"
        positions = str(sum(lock.size for lock in group))
        rows.append((reason, ", ".join(names[:EXAMPLES]) + more, advice(reason), str(len(names)), positions))
    headers = ("reason", "where (tensor:axis)", "what you can do", "axes", "positions")
    yield Section("What stays, why, and what you can do about it", table=Table(headers, tuple(rows), 3), detail=True)
