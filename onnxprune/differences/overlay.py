"""A comparison as node data for Google's Model Explorer: a value and a colour for every node of both models.

Nodes go by their names, else by their first output, as the viewer's adapters for ONNX know them.
Source: `ModelNodeData` of the package ai-edge-model-explorer, graph -> {"name", "results": {node: {"value", ..}}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Protocol

from onnxprune.differences.nodes import Change
from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.graph.count import macs, node_key
from onnxprune.graph.trace import Shape, trace
from onnxprune.graph.view import Node, View

COLOURS = {
    "equal": "#e8eaed",
    "added": "#a8dab5",
    "removed": "#f6aea9",
    "rewired": "#d7aefb",
    "attributes": "#fdd663",
    "narrower": "#8ab4f8",
    "weights": "#aecbfa",
}
"""What became of a node -> colour that black text can be read on."""
SHARES = [{"stop": 0.0, "bgColor": "#f28b82"}, {"stop": 0.5, "bgColor": "#fdd663"}, {"stop": 1.0, "bgColor": "#e8eaed"}]
AMOUNTS = [{"stop": 0.0, "bgColor": "#ffffff"}, {"stop": 1.0, "bgColor": "#f9ab00"}]
OVERLAYS = ("change", "width", "cost")


class Comparable(Protocol):
    """What a comparison found of nodes and tensors."""

    @property
    def nodes(self) -> Mapping[str, list[Change]]: ...

    @property
    def tensors(self) -> Mapping[str, list[Change]]: ...


def node_data(found: Comparable, before: View, after: View, what: str = "change") -> str:
    """Return the node data of a comparison as JSON.

    Args:
        what: "change": what became of every node. "width": share of its output's values that is left. "cost":
            multiply-adds of a run of the second model, those of a removed node of the first one.

    Raises:
        UsageError: there is no such overlay.
    """
    if what not in OVERLAYS:
        raise UsageError(f"there is no overlay '{what}'; there are {', '.join(OVERLAYS)}.")
    told = _kinds(found, before, after)
    if what == "change":
        results: dict[str, dict[str, Any]] = {
            name: {"value": kind, "bgColor": COLOURS[kind], "textColor": "#000000"} for name, kind in told.items()
        }
        data: dict[str, Any] = {"name": "what changed", "results": results}
    elif what == "width":
        data = {
            "name": "share of the width that is left",
            "results": _numbers(_widths(before, after)),
            "gradient": SHARES,
        }
    else:
        data = {"name": "multiply-adds", "results": _numbers(_costs(before, after)), "gradient": AMOUNTS}
    graphs = dict.fromkeys(view.model.proto.graph.name or "main_graph" for view in (before, after))
    return json.dumps(dict.fromkeys(graphs, data), indent=1, sort_keys=True) + "\n"


def _numbers(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    return {name: {"value": value} for name, value in values.items()}


def _named(view: View) -> Iterator[tuple[str, Node]]:
    """Yield nodes by the key that the viewer knows them by."""
    counts: dict[str, int] = {}
    for node in view.nodes:
        counts[node.name] = counts.get(node.name, 0) + 1
    for node in view.nodes:
        yield node.name if node.name and counts[node.name] == 1 else next(filter(None, node.outputs), ""), node


def _kinds(found: Comparable, before: View, after: View) -> dict[str, str]:
    """Return what became of every node of both models; the first kind that holds is told."""
    old, new = dict(_named(before)), dict(_named(after))
    changed = {change["tensor"]: change for change in found.tensors["changed"]}
    changes: dict[str, set[str]] = {}
    for change in found.nodes["changed"]:
        changes.setdefault(change["node"], set()).add(change["what"])
    gone, come = ({change["node"] for change in found.nodes[kind]} for kind in ("removed", "added"))
    told = {}
    for name, node in (old | new).items():
        whats = changes.get(name, set())
        tensors = [changed[key] for key in (old.get(name) or node).inputs if key in changed]
        if name in gone or name not in new:
            told[name] = "removed"
        elif name in come or name not in old:
            told[name] = "added"
        elif whats & {"inputs", "outputs"}:
            told[name] = "rewired"
        elif any(change["before"] != change["after"] for change in tensors):
            told[name] = "narrower"
        elif whats:
            told[name] = "attributes"
        else:
            told[name] = "weights" if tensors else "equal"
    return told


def _widths(before: View, after: View) -> dict[str, float]:
    """Return the share of the values of every node's first output that is left."""
    old, new = _shapes(before), _shapes(after)
    outputs = {name: node.outputs[0] for name, node in _named(after) if node.outputs}
    shares = {}
    for name, node in _named(before):
        if node.outputs and name in outputs and node.outputs[0] in old and outputs[name] in new:
            whole, left = (prod(shapes[key]) for shapes, key in ((old, node.outputs[0]), (new, outputs[name])))
            shares[name] = round(left / whole, 4) if whole else 1.0
    return shares


def _costs(before: View, after: View) -> dict[str, float]:
    """Return the multiply-adds of every node that has some."""
    costs: dict[str, float] = {}
    for view in (before, after):
        counted = macs(view, _shapes(view))
        costs |= {name: float(counted[key]) for name, node in _named(view) if counted.get(key := node_key(node))}
    return costs


def _shapes(view: View) -> Mapping[str, Shape]:
    try:
        return trace(view, {}).shapes
    except OnnxpruneError:
        return {}
