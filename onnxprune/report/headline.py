"""The first thing to read: what came out in one sentence, and what it was made of and with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from onnxprune.report import figures
from onnxprune.report.changes import summary
from onnxprune.report.record import Report

MARKS = {"good": "good", "poor": "poor", "failed": "failed", "not judged": "unsure"}
"""Status of the verdict -> class of its badge."""


def sentence(report: Report) -> str:
    """Return what is left, how near it is, and which gates were kept: one sentence."""
    if "diff" in report.details:
        return f"{summary(report.details['diff'])}."
    parts = [*_left(report), *_near(report), *_gates(report)]
    if parts:
        text = ", ".join(parts[:-1] or parts) + (f"; {parts[-1]}" if len(parts) > 1 else "")
        return f"{text[0].upper()}{text[1:]}."
    if found := _found_out(report):
        return found
    if report.input is not None and report.output is None:
        side = report.input
        sizes = f"{figures.count(side.params)} parameters, {figures.count(side.macs)} MACs, {figures.size(side.bytes)}"
        facts = [sizes]
        groups = [group for group in report.groups if not group.locked]
        facts += [f"{len(groups)} groups of channels can be pruned"] if groups else []
        return f"{'; '.join(facts)}."
    return ""


def _found_out(report: Report) -> str:
    """Return what a command found that makes no model: one sentence, empty for the others."""
    details = report.details
    if rows := details.get("sensitivity"):
        last = [key for key in rows[0] if key.startswith("error_at_")][-1]
        share = f"{float(last.removeprefix('error_at_')):.0%}"
        order = sorted(rows, key=lambda row: float(row[last]))
        told = [f"'{row['group']}' ({float(row[last]):.2g})" for row in (order[0], order[-1])]
        return f"With {share} of one group gone, {told[0]} costs least and {told[1]} most."
    if group := details.get("explain"):
        gone = sum(not line["kept"] for line in group["channels"])
        why = f": {group['reason']}" if group["reason"] else ""
        return f"{gone} of {group['size']} channels of '{group['group']}' go{why}."
    if signed := details.get("signed"):
        files = len(signed["files"])
        return f"{files} file{'s' * (files > 1)} as signed."
    return ""


def status(report: Report) -> str:
    """Return good, poor, failed or not judged; empty where a command judges nothing."""
    return str(report.details.get("verdict", {}).get("status", ""))


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Return what a reader needs to make it again: names, date, versions, machine."""
    details = report.details
    for label, side in (("original", report.input), ("result", report.output)):
        if side is not None and (side.path or label == "original"):
            yield label, side.path or "in memory"
    if details.get("date"):
        yield "date", str(details["date"])
    if details.get("versions"):
        yield "versions", ", ".join(f"{name} {number}" for name, number in details["versions"].items())
    if details.get("machine"):
        yield "machine", str(details["machine"])
    for label, side in (("sha256 of the original", report.input), ("sha256 of the result", report.output)):
        if side is not None and side.sha256:
            yield label, side.sha256


def command(report: Report) -> str:
    """Return the command line to copy."""
    words = report.details.get("argv")
    return f"onnxprune {shlex.join(words)}" if words else ""


def recipe(report: Report) -> str:
    """Return the recipe to copy, as YAML."""
    import yaml

    data = report.details.get("recipe")
    if not data:
        return ""
    text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)
    return text


def _left(report: Report) -> Iterator[str]:
    before, after = report.input, report.output
    if before is not None and after is not None:
        known = (("file", before.bytes, after.bytes), ("multiply-adds", before.macs, after.macs))
        for name, old, new in known:
            if old and new is not None and (new != old or name == "file"):
                yield f"{100 * new / old:.0f} % of the {name}"
    times = [values["median_ms"] for values in report.latency.values() if isinstance(values, dict)]
    if len(times) > 1 and times[0]:
        ratios = ", ".join(f"{value / times[0]:.2f}" for value in times[1:])
        yield f"{ratios} of the latency"


def _near(report: Report) -> Iterator[str]:
    values = report.details.get("evaluation", {})
    if "drop" in values:
        yield f"value {values['before']:.5g} → {values['after']:.5g}"
    known = [found for found in report.parity.values() if found]
    agreement = [value for found in known if (value := found.get("agreement")) is not None]
    cosine = [value for found in known if (value := found.get("cosine")) is not None]
    if agreement:
        yield f"agreement {100 * min(agreement):.1f} %"
    elif cosine:
        yield f"cosine {min(cosine):.4f}"


def _gates(report: Report) -> Iterator[str]:
    gates: list[dict[str, Any]] = report.details.get("gates") or []
    missed = [gate for gate in gates if not gate["held"]]
    if missed:
        named = ", ".join(f"{gate['name'].replace('_', '-')} {_found(gate)}" for gate in missed)
        yield f"{len(missed)} of {len(gates)} {'gate' if len(gates) == 1 else 'gates'} not kept ({named})"
    elif gates:
        yield f"{len(gates)} {'gate' if len(gates) == 1 else 'gates'} kept"


def _found(gate: dict[str, Any]) -> str:
    value, limit = gate["value"], gate["limit"]
    return f"{'could not be judged' if value is None else figures.beside(value, limit)}, limit {limit:g}"
