"""Nodes of two models: added, removed, rewired, with other attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from onnxprune.graph.view import Node, View

Change = dict[str, Any]


def compare_nodes(before: View, after: View) -> dict[str, list[Change]]:
    """Return nodes added, removed and changed; Constant nodes count as tensors.

    Nodes belong together by operator and name, else by operator and first output.
    """
    old, new = _named(before), _named(after)
    return {
        "added": [_told(node) for key, node in new.items() if key not in old],
        "removed": [_told(node) for key, node in old.items() if key not in new],
        "changed": [change for key, node in old.items() if key in new for change in _changes(node, new[key])],
    }


def _named(view: View) -> dict[tuple[str, str, str], Node]:
    nodes = [node for node in view.nodes if node.op_type != "Constant"]
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.name] = counts.get(node.name, 0) + 1
    named = {}
    for node in nodes:
        alone = node.name and counts[node.name] == 1
        named[node.domain, node.op_type, node.name if alone else f"→ {next(filter(None, node.outputs), '')}"] = node
    return named


def _told(node: Node) -> Change:
    return {"node": node.name or next(filter(None, node.outputs), ""), "operator": node.op_type}


def _changes(old: Node, new: Node) -> Iterator[Change]:
    place = _told(old)
    for what in ("inputs", "outputs"):
        one, other = getattr(old, what), getattr(new, what)
        if one != other:
            yield {**place, "what": what, "before": list(one), "after": list(other)}
    one, other = _attributes(old), _attributes(new)
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield {**place, "what": name, "before": _plain(one.get(name)), "after": _plain(other.get(name))}


def _attributes(node: Node) -> dict[str, object]:
    found = {}
    for attribute in node.proto.attribute:
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            if not node.branches:  # bodies that are closed are compared as a whole, others node by node
                found[attribute.name] = attribute.SerializeToString(deterministic=True)
            continue
        value = onnx.helper.get_attribute_value(attribute)
        is_plain = isinstance(value, int | float | bytes | list)
        found[attribute.name] = value if is_plain else attribute.SerializeToString(deterministic=True)
    return found


def _plain(value: object) -> object:
    """Return what JSON can hold of an attribute; contents are told by their length."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return text if len(value) <= 80 and text.isprintable() else f"{len(value)} bytes"
    if isinstance(value, list):
        return [_plain(item) for item in value[:16]] + ([f".. {len(value) - 16} more"] if len(value) > 16 else [])
    if value is None or isinstance(value, int | str):
        return value
    return float(value) if isinstance(value, float | np.floating) else type(value).__name__
