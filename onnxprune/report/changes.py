"""What a report shows of the differences between two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

LINKS = {
    "plan": "Positions are those of the plan.",
    "record": "Positions are those that the second model says it lost.",
    "values": "Positions were found by the values of the tensors.",
    "names": "Tensors and nodes were put together by names, shapes and contents.",
}


def changes(report: Report) -> Iterator[Section]:
    """Show nodes, tensors, inputs, outputs and settings that changed."""
    found = report.details.get("diff")
    if not found:
        return
    lines = [f"{summary(found)}."]
    if not found["equal"]:
        lines += [LINKS[found["link"]]]
        lines += ["The second says that it was made from the first."] if found["made_from"] else []
    yield Section("", tuple(lines))
    yield from _table("Inputs and outputs", found["interface"])
    yield _tensors(found["tensors"])
    yield _nodes(found["nodes"])
    yield from _table("Settings and metadata", found["settings"])


def summary(found: Mapping[str, Any]) -> str:
    """Return what changed in one phrase."""
    if found["equal"]:
        return "The models are equal"
    tensors, nodes = found["tensors"], found["nodes"]
    narrower = sum(change["before"] != change["after"] for change in tensors["changed"])
    counts = {
        "input or output other": len(found["interface"]),
        "tensor of another shape": narrower,
        "tensor of other values or type": len(tensors["changed"]) - narrower,
        "tensor added": len(tensors["added"]),
        "tensor removed": len(tensors["removed"]),
        "tensor renamed": len(tensors["renamed"]),
        "node added": len(nodes["added"]),
        "node removed": len(nodes["removed"]),
        "node changed": len({change["node"] for change in nodes["changed"]}),
        "setting other": len(found["settings"]),
    }
    return f"Different: {', '.join(_many(number, what) for what, number in counts.items() if number)}"


def _tensors(found: Mapping[str, Any]) -> Section:
    rows = []
    for change in found["changed"]:
        gone = change["removed"]
        what = change.get("type", "")
        if gone:
            sizes = change["before"]
            what = ", ".join(f"axis {axis}: {len(places)} of {sizes[int(axis)]} gone" for axis, places in gone.items())
        elif gone is None and not what:
            what = "another shape"
        rows.append(
            (change["tensor"], _shape(change["before"]), _shape(change["after"]), what, _norm(change["changed"]))
        )
    rows += [(item["tensor"], "", _shape(item["shape"]), f"added ({item['type']})", "") for item in found["added"]]
    rows += [(item["tensor"], _shape(item["shape"]), "", f"removed ({item['type']})", "") for item in found["removed"]]
    rows += [(item["tensor"], "", "", f"is now {item['after']}", "") for item in found["renamed"]]
    headers = ("tensor", "before", "after", "what", "change of what stayed")
    return Section("Tensors" if rows else "", table=Table(headers, tuple(rows), 4) if rows else None)


def _nodes(found: Mapping[str, Any]) -> Section:
    rows = [(item["node"], item["operator"], "added", "", "") for item in found["added"]]
    rows += [(item["node"], item["operator"], "removed", "", "") for item in found["removed"]]
    for change in found["changed"]:
        values = (_value(change["before"]), _value(change["after"]))
        rows.append((change["node"], change["operator"], change["what"], *values))
    headers = ("node", "operator", "what", "before", "after")
    return Section("Nodes" if rows else "", table=Table(headers, tuple(rows), 9) if rows else None)


def _table(title: str, found: list[Mapping[str, object]]) -> Iterator[Section]:
    if found:
        rows = tuple((str(item["what"]), _value(item["before"]), _value(item["after"])) for item in found)
        yield Section(title, table=Table(("what", "before", "after"), rows, 9))


def _value(value: object) -> str:
    if value is None:
        return "-"
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _shape(sizes: list[int]) -> str:
    return " x ".join(str(size) for size in sizes) or "scalar"


def _norm(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value else "none"


def _many(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    noun, _, rest = what.partition(" ")
    nouns = "inputs or outputs" if what.startswith("input or output") else f"{noun}s"
    rest = rest.removeprefix("or output ")
    return f"{number} {nouns} {rest.replace('another shape', 'other shapes')}"
