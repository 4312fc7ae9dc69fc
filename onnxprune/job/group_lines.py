"""Groups and locks of an analysis as lines of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.report import GroupLine

if TYPE_CHECKING:
    from onnxprune.channels.analyse import Channels
    from onnxprune.channels.groups import ChannelGroup, Keep, Lock

CARRIERS = frozenset(
    "Identity Transpose Cast Reshape Flatten DequantizeLinear QuantizeLinear Squeeze Unsqueeze".split()
)
"""Operators through which a stored tensor reaches the node that works with it."""


def inspected(channels: Channels) -> list[GroupLine]:
    """Return a line for each group with its sites and the MACs that it carries, and one for each lock."""
    from onnxprune.graph.count import macs, node_key
    from onnxprune.statistics.batch import batch_of

    batch = batch_of(channels.view, channels.trace)
    counted = macs(channels.view, channels.trace.shapes)
    nodes = enumerate(channels.view.nodes)
    places = {node_key(node): number for number, node in nodes if node.op_type not in CARRIERS}
    lines = []
    for group in in_graph_order(channels):
        sites = [{"tensor": site.tensor, "axis": site.axis, "role": site.role} for site in group.sites]
        details = {
            "exact": group.exact,
            "active": group.active,
            "nodes": _writers(channels, group, places),
            "macs": round(carried(channels, group, counted) / batch),
            "sites": sites,
        }
        lines.append(GroupLine(group.name, group.kind, group.size, details=details))
    return [*lines, *locked(channels.locks)]


def pruned(channels: Channels, keep: Keep, reasons: Mapping[str, str] | None = None) -> list[GroupLine]:
    """Return a line for each group with what is kept of it and the MACs that it carried, and one for each lock.

    Args:
        reasons: why a group was left alone, where it was.
    """
    from onnxprune.graph.count import macs
    from onnxprune.statistics.batch import batch_of

    batch = batch_of(channels.view, channels.trace)
    counted = macs(channels.view, channels.trace.shapes)
    lines = []
    for group in in_graph_order(channels):
        kept = int(np.count_nonzero(keep[group.name])) if group.name in keep else group.size
        reason = (reasons or {}).get(group.name)
        details: dict[str, Any] = {"exact": group.exact, "active": group.active}
        details["macs"] = round(carried(channels, group, counted) / batch)
        lines.append(GroupLine(group.name, group.kind, group.size, kept, reason=reason, details=details))
    return [*lines, *locked(channels.locks)]


def in_graph_order(channels: Channels) -> list[ChannelGroup]:
    """Return the groups in the order in which a run meets their first weights."""
    places: dict[str, int] = {}
    for number, node in enumerate(channels.view.nodes):
        for key in node.inputs:
            places.setdefault(key, number)
    last = len(channels.view.nodes)
    first = {group.name: min(places.get(site.tensor, last) for site in group.sites) for group in channels.groups}
    return sorted(channels.groups, key=lambda group: (first[group.name], group.name))


def locked(locks: Iterable[Lock]) -> list[GroupLine]:
    """Return a line for each lock, the largest first."""
    ordered = sorted(locks, key=lambda lock: -lock.size)
    return [
        GroupLine(f"{lock.tensor}:{lock.axis}", "axis", lock.size, lock.size, locked=True, reason=lock.reason)
        for lock in ordered
    ]


def carried(channels: Channels, group: ChannelGroup, counted: Mapping[str, int]) -> int:
    """Return the MACs of the nodes whose weights the group writes or reads: what shrinks when it is pruned."""
    nodes: set[str] = set()
    for site in group.sites:
        if site.role in ("writes", "reads"):
            nodes |= _users(channels, site.tensor)
    return sum(counted.get(name, 0) for name in nodes)


def _writers(channels: Channels, group: ChannelGroup, places: Mapping[str, int]) -> list[str]:
    """Return the names of the nodes that make the channels of a group, in graph order.

    Args:
        places: node name -> place in the graph, of the nodes that are listed.
    """
    users = set[str]().union(*(_users(channels, site.tensor) for site in group.sites if site.role == "writes"))
    return sorted(users & places.keys(), key=lambda name: places[name])


def _users(channels: Channels, tensor: str) -> set[str]:
    from onnxprune.graph.count import node_key

    users: set[str] = set()
    waiting = [tensor]
    while waiting:
        for node, _ in channels.view.readers.get(waiting.pop(), []):
            users.add(node_key(node))
            if node.op_type in CARRIERS:
                waiting.extend(key for key in node.outputs if key)
    return users
