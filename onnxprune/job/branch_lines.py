"""Residual branches of a model as lines of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.graph.branches import Branch
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View


def branch_lines(view: View, traced: Trace) -> list[dict[str, object]]:
    """Return for each branch: name, operators, MACs of one sample, parameters, share of the time, whether it can go.

    The share of the time is predicted from multiply-adds and bytes, not measured.
    """
    from onnxprune.graph.branches import find_branches
    from onnxprune.graph.cost import seconds
    from onnxprune.graph.count import macs
    from onnxprune.statistics.batch import batch_of

    counted, batch = macs(view, traced.shapes), batch_of(view, traced)
    times = seconds(view, traced.shapes)
    whole = sum(times.values()) or 1.0
    return [
        {
            **_line(view, branch, counted),
            "macs": round(_total(branch, counted) / batch),
            "time_share": round(_total(branch, times) / whole, 4),
        }
        for branch in find_branches(view, traced)
    ]


def _line(view: View, branch: Branch, counted: Mapping[str, int]) -> dict[str, object]:
    from onnxprune.graph.count import node_key

    inside = {id(node) for node in branch.nodes} | {id(branch.end)}
    read = {key for node in branch.nodes for key in node.inputs if key in view.parameters}
    own = [key for key in read if all(id(node) in inside for node, _ in view.readers[key])]
    kinds = Counter(node.op_type for node in branch.nodes if node.op_type != "Constant")
    work: Counter[str] = Counter()
    for node in branch.nodes:
        work[node.op_type] += counted.get(node_key(node), 0)
    return {
        "name": branch.name,
        "operators": dict(sorted(kinds.items(), key=lambda item: (-work[item[0]], -item[1], item[0]))),
        "params": sum(view.parameters[key].elements for key in own if view.parameters[key].dims),
        "droppable": branch.reason is None,
        "reason": branch.reason,
        "inputs": list(branch.inputs),
        "outputs": list(branch.outputs),
    }


def _total(branch: Branch, table: Mapping[str, float]) -> float:
    from onnxprune.graph.count import node_key

    return sum(table.get(key, 0) for key in {node_key(node) for node in branch.nodes})
