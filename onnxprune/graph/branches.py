"""Residual branches: what an Add puts on top of a tensor that it is computed from, y = x + f(x).

To drop a branch is to let f be zero: y = x. A branch ends at an Add (or a Sum of two, or a norm that adds a skip) one
of whose inputs is an ancestor of the other and has the shape of the result; gates and layer scales belong to the
branch, and so does the bias that a norm adds.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.graph.states import fed_back
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import Node, View

MICROSOFT = "com.microsoft"
SKIP_NORMS = frozenset({"SkipLayerNormalization", "SkipSimplifiedLayerNormalization"})
"""Operators of com.microsoft that normalise the sum of their first two inputs (and a bias)."""
ENDS = frozenset({("", "Add"), ("", "Sum"), *((MICROSOFT, name) for name in SKIP_NORMS)})


@dataclass(frozen=True, eq=False)
class Branch:
    """One residual branch.

    name: of the node that adds it. end: that node. place: number of its input that is the branch.
    skip: tensor that the result is without the branch. nodes: those that only the branch needs, in order.
    outputs: outputs of the model that are made in the branch and go with it (caches). inputs: inputs only it reads.
    reason: why it cannot be dropped, None where it can.
    """

    name: str
    end: Node
    place: int
    skip: str
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    reason: str | None = None


def find_branches(view: View, trace: Trace) -> tuple[Branch, ...]:
    """Return all residual branches of the main graph, in the order of their ends."""
    order = {id(node): number for number, node in enumerate(view.nodes)}
    depends, asides = _Ancestors(view, order), _asides(view)
    found = []
    for node in view.nodes:
        if not _may_end(view, node):
            continue
        for place in (1, 0):
            branch, skip = node.inputs[place], node.inputs[1 - place]
            if branch == skip or not depends.on(branch, skip):
                continue
            found.append(_branch(view, trace, node, place, order, asides))
            break
    return tuple(_named(found))


def _may_end(view: View, node: Node) -> bool:
    if (node.domain, node.op_type) not in ENDS or node.graph is not view.model.proto.graph:
        return False
    return len(node.inputs) == 2 or (node.op_type in SKIP_NORMS and len(node.inputs) > 2)


def _named(found: Sequence[Branch]) -> list[Branch]:
    """Give equal names a number."""
    counts: dict[str, int] = {}
    result = []
    for branch in found:
        counts[branch.name] = counts.get(branch.name, 0) + 1
        name = branch.name if counts[branch.name] == 1 else f"{branch.name}#{counts[branch.name]}"
        result.append(Branch(**{**vars(branch), "name": name}))
    return result


def _branch(
    view: View, trace: Trace, node: Node, place: int, order: Mapping[int, int], asides: Mapping[int, Node]
) -> Branch:
    skip, output = node.inputs[1 - place], node.outputs[0]
    nodes, made = _whole(view, node, node.inputs[place], order, asides)
    inside = {id(n) for n in nodes} | {id(node)}
    inputs = tuple(
        key for key in view.inputs if (r := view.readers.get(key)) and all(id(reader) in inside for reader, _ in r)
    )
    outputs = tuple(key for key in view.outputs if key in made)
    name, states = node.name or output, {output for output, _ in fed_back(view)}
    reason = None
    if trace.shapes.get(skip) is None or trace.shapes.get(skip) != trace.shapes.get(output):
        reason = "what it is added to has another shape than the result"
    elif not nodes:
        reason = "everything in it is used elsewhere too"
    elif any(key in made and key not in states for key in view.outputs):
        reason = "an output of the model is made in it"
    return Branch(name, node, place, skip, nodes, outputs, inputs, reason)


def _asides(view: View) -> dict[int, Node]:
    """Return the nodes (by `id`) that are there for states of the model alone: what follows from them is fed back."""
    states = {output for output, _ in fed_back(view)}
    found: dict[int, Node] = {}
    for node in reversed(view.nodes):
        made = [key for key in node.outputs if key and (key in view.outputs or view.readers.get(key))]
        readers = [reader for key in made for reader, _ in view.readers.get(key, [])]
        ends = all(key in states for key in made if key in view.outputs)
        if made and ends and not view.captured.intersection(made) and all(id(reader) in found for reader in readers):
            found[id(node)] = node
    return found


def _whole(
    view: View, end: Node, start: str, order: Mapping[int, int], asides: Mapping[int, Node]
) -> tuple[tuple[Node, ...], set[str]]:
    """Return the nodes of a branch and their results, with what it does for states besides what it adds.

    What makes a state of this branch and of something else stays, and so does what it needs.
    """
    allowed = dict(asides)
    while True:
        nodes, _ = _exclusive(view, end, start, order, allowed)
        inside = {id(node) for node in nodes}
        extra = _followers(view, nodes, allowed)
        inside |= extra.keys()
        made = view.producers
        shared = [
            node
            for node in extra.values()
            if any(
                key in made and id(made[key]) not in inside and key not in view.constants for key in node.inputs if key
            )
        ]
        if not shared:
            break
        for node in shared:
            del allowed[id(node)]
    every = tuple(sorted({**{id(n): n for n in nodes}, **extra}.values(), key=lambda node: order[id(node)]))
    return every, {key for node in every for key in node.outputs if key}


def _followers(view: View, nodes: Sequence[Node], allowed: Mapping[int, Node]) -> dict[int, Node]:
    """Return the allowed nodes (by `id`) that read what nodes make, or what such nodes make."""
    found: dict[int, Node] = {}
    waiting = list(nodes)
    while waiting:
        for key in waiting.pop().outputs:
            for reader, _ in view.readers.get(key, []):
                if id(reader) in allowed and id(reader) not in found:
                    found[id(reader)] = reader
                    waiting.append(reader)
    return found


def _exclusive(
    view: View, end: Node, start: str, order: Mapping[int, int], allowed: Mapping[int, Node]
) -> tuple[tuple[Node, ...], set[str]]:
    """Return the nodes whose every result only the branch uses (allowed nodes aside), and their results."""
    chosen: dict[int, Node] = {}
    waiting: list[tuple[int, str]] = []
    seen: set[int] = set()

    def push(keys: Iterable[str]) -> None:
        for key in keys:
            producer = view.producers.get(key)
            if producer is not None and id(producer) not in seen:
                seen.add(id(producer))
                heapq.heappush(waiting, (-order[id(producer)], key))

    push([start])
    while waiting:
        node = view.producers[heapq.heappop(waiting)[1]]
        uses = [(reader, key) for key in node.outputs for reader, _ in view.readers.get(key, [])]
        inside = all(
            id(reader) in chosen or id(reader) in allowed or (reader is end and key == start) for reader, key in uses
        )
        captured = any(key in view.captured for key in node.outputs)
        if uses and inside and not captured and node.graph is end.graph:
            chosen[id(node)] = node
            push(key for key in node.inputs if key)
    nodes = tuple(sorted(chosen.values(), key=lambda node: order[id(node)]))
    return nodes, {key for node in nodes for key in node.outputs if key}


class _Ancestors:
    """Which tensors a tensor is computed from, as bits of one integer a node."""

    def __init__(self, view: View, order: Mapping[int, int]) -> None:
        self._view, self._order = view, order
        self._bits: list[int] = []
        for number, node in enumerate(view.nodes):
            bits = 1 << number
            for key in (*node.inputs, *node.captured, *(k for branch in node.branches for k in branch)):
                producer = view.producers.get(key)
                if producer is not None:
                    bits |= self._bits[order[id(producer)]]
            self._bits.append(bits)
        self._readers_of_inputs = {
            key: sum(1 << order[id(reader)] for reader, _ in view.readers.get(key, [])) for key in view.inputs
        }

    def on(self, key: str, other: str) -> bool:
        """Tell whether `key` is computed from `other`."""
        producer, source = self._view.producers.get(key), self._view.producers.get(other)
        if producer is None:
            return False
        bits = self._bits[self._order[id(producer)]]
        if source is None:
            return bool(bits & self._readers_of_inputs.get(other, 0))
        return producer is not source and bool(bits >> self._order[id(source)] & 1)


def pick_branches(branches: Sequence[Branch], names: Sequence[str]) -> tuple[Branch, ...]:
    """Return the branches that names mean: the node that adds them, or its output.

    Raises:
        UsageError: there is no such branch, or it cannot be dropped.
    """
    table = {key: branch for branch in branches for key in (branch.end.outputs[0], branch.name)}
    picked = []
    for name in names:
        if name not in table:
            close = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
            hint = f"did you mean '{close[0]}'?" if close else "the model has no residual branch." * (not table)
            raise UsageError(f"there is no branch '{name}'; {hint or 'see inspect for their names.'}")
        if (reason := table[name].reason) is not None:
            raise UsageError(f"branch '{name}' cannot be dropped: {reason}.")
        picked.append(table[name])
    return tuple(dict.fromkeys(picked))
