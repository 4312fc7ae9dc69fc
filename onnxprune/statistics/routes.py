"""Which branches the data take: the conditions of all If nodes are run, those inside of followed branches too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx

from onnxprune.graph.bodies import reads
from onnxprune.graph.follow import Followed, form_of
from onnxprune.graph.session import open_session
from onnxprune.graph.view import View
from onnxprune.statistics.data import Data, Unit
from onnxprune.statistics.feeds import Feed

BRANCHES = {True: "then_branch", False: "else_branch"}
Taken = Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Routes:
    """What the data do at the If nodes.

    taken: key of the first output of an If -> attribute of the branch that all samples take.
    parts: where samples part, what each part of them takes, and the part; the largest first.
    """

    taken: Taken = field(default_factory=dict)
    parts: tuple[tuple[Taken, Data], ...] = ()


def routes(view: View, data: Data, threads: int = 0, provider: str | None = None) -> Routes:
    """Return which branches the samples take, one sample at a time.

    Raises:
        ModelError: onnxruntime cannot run what a condition is computed from.
    """
    if not any(node.op_type == "If" and not node.domain for node in view.nodes):
        return Routes()
    waiting: list[tuple[dict[str, str], frozenset[int] | None]] = [({}, None)]
    common: dict[str, str] = {}
    done: list[tuple[dict[str, str], frozenset[int]]] = []
    while waiting:
        taken, chosen = waiting.pop()
        form = form_of(view.model, taken, view.scopes)
        values = _values(form, data, chosen, threads, provider) if form.conditions else {}
        settled = {key: BRANCHES[seen.pop()] for key, found in values.items() if len(seen := set(found.values())) == 1}
        if chosen is None:
            common |= settled
        if settled:
            waiting.append((taken | settled, chosen))
        elif values:
            key, found = next(iter(values.items()))
            for branch in BRANCHES:
                part = frozenset(number for number, value in found.items() if value == branch)
                waiting.append((taken | {key: BRANCHES[branch]}, part))
        elif chosen is not None:
            done.append((taken, chosen))
    done.sort(key=lambda part: (-len(part[1]), sorted(part[0].items())))
    return Routes(common, tuple((taken, _part(data, chosen)) for taken, chosen in done))


def _part(data: Data, chosen: Iterable[int]) -> Data:
    """Return some of the samples, one a feed."""
    wanted, stacked = set(chosen), next(iter(data.stream)).stacked
    feeds = [feed for number, feed in enumerate(data.batches(1)) if number in wanted]
    units = [Unit(feed, len(next(iter(feed.values()))) if stacked else 1, stacked) for feed in feeds]
    count, name = sum(unit.samples for unit in units), f"{data.sha256}:{sorted(wanted)}"
    return replace(data, samples=count, sha256=name, warnings=(), stream=units)


def _values(
    form: Followed, data: Data, chosen: frozenset[int] | None, threads: int, provider: str | None
) -> dict[str, dict[int, bool]]:
    """Return what each condition was: key -> number of the sample -> value."""
    names = list(dict.fromkeys(form.conditions.values()))
    proto = _ancestors(form.proto, names)
    inputs = {value.name for value in proto.graph.input}
    session = open_session(proto, threads=threads or None, provider=provider, folder=form.folder)
    found: dict[str, dict[int, bool]] = {name: {} for name in names}
    for number, feed in enumerate(data.batches(1)):
        if chosen is not None and number not in chosen:
            continue
        given: Feed = {name: array for name, array in feed.items() if name in inputs}
        for name, value in zip(names, session.values(names, given), strict=True):
            found[name][number] = bool(value.reshape(-1)[0])
        if not inputs:
            break
    return {key: found[condition] for key, condition in form.conditions.items()}


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
