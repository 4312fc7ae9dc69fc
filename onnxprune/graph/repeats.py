"""Entries that a file has twice though their name says one thing: the last counts where onnxruntime takes it.

Of stored tensors that differ it takes the first or the last, by their size; the checker refuses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx

from onnxprune.graph.bodies import graphs

Key = Callable[[Any], str]


def has_repeats(proto: onnx.ModelProto) -> bool:
    """Tell whether anything stands twice."""
    keyed = any(len({name_of(entry) for entry in field}) < len(field) for field, name_of in _keyed(proto).values())
    return keyed or any(_equal_tensors(graph) or _repeated_weights(graph) for graph in graphs(proto.graph))


def drop_repeats(proto: onnx.ModelProto) -> str:
    """Keep one entry of each name, at the place of the first, and say which had several."""
    found: dict[str, None] = {}
    for kind, (field, name_of) in _keyed(proto).items():
        last = {name_of(entry): entry for entry in field}
        names = [name_of(entry) for entry in field]
        found |= dict.fromkeys(f"{kind} '{name or 'ai.onnx'}'" for name in last if names.count(name) > 1)
        kept = [_copied(entry) for entry in last.values()]
        del field[:]
        field.extend(kept)
    for graph in graphs(proto.graph):
        for number in reversed(_equal_tensors(graph)):
            found[f"the stored tensor '{graph.initializer[number].name}'"] = None
            del graph.initializer[number]
        for number in reversed(_repeated_weights(graph)):
            found[f"the input '{graph.input[number].name}'"] = None
            del graph.input[number]
    shown = ", ".join(list(found)[:3]) + (" and others" if len(found) > 3 else "")
    return f"it has several entries for {shown}; one counts, the last, as in onnxruntime"


def _keyed(proto: onnx.ModelProto) -> dict[str, tuple[Any, Key]]:
    """Return what it is -> repeated field and the name of an entry."""
    return {
        "the key": (proto.metadata_props, lambda entry: entry.key),
        "the operator set": (proto.opset_import, lambda entry: "" if entry.domain == "ai.onnx" else entry.domain),
    }


def _equal_tensors(graph: onnx.GraphProto) -> list[int]:
    """Return stored tensors that stand there a second time with the same content."""
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) == len(names):
        return []
    first: dict[str, int] = {}
    found = []
    for number, name in enumerate(names):
        if first.setdefault(name, number) != number and graph.initializer[first[name]] == graph.initializer[number]:
            found.append(number)
    return found


def _repeated_weights(graph: onnx.GraphProto) -> list[int]:
    """Return inputs that stand there a second time; only of stored tensors, others are no model."""
    stored = {tensor.name for tensor in graph.initializer}
    seen: set[str] = set()
    found = []
    for number, value in enumerate(graph.input):
        if value.name in stored and value.name in seen:
            found.append(number)
        seen.add(value.name)
    return found


def _copied(entry: Any) -> Any:
    copy = type(entry)()
    copy.CopyFrom(entry)
    return copy
