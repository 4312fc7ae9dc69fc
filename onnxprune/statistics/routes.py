"""Which branches the data take: the conditions of all If nodes are run, those inside of followed branches too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from onnxprune.graph.follow import form_of, reads
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.statistics.data import Data
from onnxprune.statistics.session import Session

BRANCHES = {True: "then_branch", False: "else_branch"}


@dataclass(frozen=True)
class Routes:
    """What the data do at the If nodes.

    taken: key of the first output of an If -> attribute of the branch that all samples take.
    open: keys of those at which samples part.
    """

    taken: Mapping[str, str] = field(default_factory=dict)
    open: frozenset[str] = frozenset()


def routes(view: View, data: Data, threads: int = 0, provider: str | None = None) -> Routes:
    """Return which branches the samples take, one sample at a time.

    Raises:
        ModelError: onnxruntime cannot run what a condition is computed from.
    """
    taken, parted = dict[str, str](), set[str]()
    while any(node.op_type == "If" and not node.domain for node in view.nodes):
        form = form_of(view.model, taken, view.scopes)
        found = {key: condition for key, condition in form.conditions.items() if key not in parted}
        if not found:
            break
        values = _values(form, list(dict.fromkeys(found.values())), data, threads, provider)
        for key, condition in found.items():
            if len(values[condition]) == 1:
                taken[key] = BRANCHES[next(iter(values[condition]))]
            else:
                parted.add(key)
    return Routes(taken, frozenset(parted))


def _values(form: Model, conditions: list[str], data: Data, threads: int, provider: str | None) -> dict[str, set[bool]]:
    """Return what each condition was on the data."""
    proto = _ancestors(form.proto, conditions)
    inputs = {value.name for value in proto.graph.input}
    session = Session(proto, threads=threads or None, provider=provider, folder=form.folder)
    seen: dict[str, set[bool]] = {name: set() for name in conditions}
    for feed in data.batches(1):
        values = session.run(conditions, {name: array for name, array in feed.items() if name in inputs})
        for name, value in zip(conditions, values, strict=True):
            seen[name].add(bool(value.reshape(-1)[0]))
        if not inputs:
            break
    return seen


def _ancestors(source: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the model with only what the tensors are computed from."""
    wanted, nodes = set(names), []
    for node in reversed(source.graph.node):
        if any(name in wanted for name in node.output):
            nodes.append(node)
            wanted.update(reads(node))
    proto = onnx.ModelProto(ir_version=source.ir_version)
    proto.opset_import.extend(source.opset_import)
    proto.functions.extend(source.functions)
    proto.graph.name = source.graph.name
    proto.graph.node.extend(reversed(nodes))
    proto.graph.initializer.extend(t for t in source.graph.initializer if t.name in wanted)
    proto.graph.sparse_initializer.extend(s for s in source.graph.sparse_initializer if s.values.name in wanted)
    proto.graph.input.extend(v for v in source.graph.input if v.name in wanted)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return proto
