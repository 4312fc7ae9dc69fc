"""What takes the place of dropped branches: the substitutes that repair most for their predicted time.

Branches that stay would repair all of what dropping them breaks, and take all of their time. Substitutes are worth it
where the share of the error that they repair, after the closed form of everything else, is larger than the share of
that time that they take. Of nothing, one kind for all branches, and for each branch the kind that gives most of what it
gave, the one with the largest difference is taken. Where widths have to meet a target with them, they take nothing
but what the widths then lose more, so the smallest error is the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnxprune.allocate.measures import MEASURES
from onnxprune.compensate.compensate import kept_positions
from onnxprune.compensate.substitute_values import Collected, gather, merged, with_values
from onnxprune.errors import ModelError, NothingToPruneError
from onnxprune.graph.branches import SKIP_NORMS, Branch
from onnxprune.graph.cost import cost, cost_of, seconds
from onnxprune.graph.count import node_key
from onnxprune.graph.drop import BIASES, Shortened, sum_of
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.graph.substitute import KINDS, Substitute, channel_axis, put_in
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.methods.depth import Whole, whole_of
from onnxprune.methods.distances import Distance, parts
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.result import PruneResult
from onnxprune.methods.runtime import Runtime
from onnxprune.statistics.collect import observed
from onnxprune.statistics.data import Data
from onnxprune.types import Array

BATCH = 16
SAMPLES = 256


Fitted = dict[str, tuple[Branch, dict[str, tuple[Substitute, float]]]]
"""Name of a branch -> the branch, and for each kind the substitute and the share of the branch that it leaves out."""
Trial = Callable[[tuple[Substitute, ...], Data], Model]
"""Substitutes for dropped branches, inputs of the whole model -> the model without them, refitted to the inputs."""


def choose_substitutes(
    short: Shortened | None,
    data: Data | None,
    wanted: str | None,
    runtime: Runtime,
    trial: Trial,
    *,
    at_target: bool = False,
) -> tuple[Substitute, ...]:
    """Return what takes the place of dropped branches; nothing where there are no data or nothing is worth its time.

    Args:
        data: inputs of the whole model. wanted: "none", one of `KINDS` for all branches, or None: whatever is best.
        trial: refits a candidate. at_target: it leaves each of them the same size or time.
    """
    if short is None or data is None or wanted == "none":
        return ()
    table = _fitted_kinds(short, data, runtime)
    likely = _likely(short, table, wanted)
    if wanted is not None or not table:
        return likely
    alike = [tuple(kinds[kind][0] for _, kinds in table.values()) for kind in KINDS]
    return _worth_most(short, [*alike, likely], data, runtime, trial, at_target)


def likely_substitutes(
    short: Shortened | None, data: Data, wanted: str | None, runtime: Runtime
) -> tuple[Substitute, ...]:
    """Return what gives most of what each branch gave for its time, without a look at the whole network."""
    if short is None or wanted == "none":
        return ()
    return _likely(short, _fitted_kinds(short, data, runtime), wanted)


def _likely(short: Shortened, table: Fitted, wanted: str | None) -> tuple[Substitute, ...]:
    if wanted is not None:
        return tuple(kinds[wanted][0] for _, kinds in table.values())
    best = (_best(short, branch, kinds) for branch, kinds in table.values())
    return tuple(one for one in best if one is not None)


def _fitted_kinds(short: Shortened, data: Data, runtime: Runtime) -> Fitted:
    """Return for each branch that can have one the substitutes of all kinds."""
    free = {b.name: (b, axis) for b in short.branches if (axis := _axis(short, b)) is not None}
    if not free:
        return {}
    batches = -(-min(SAMPLES, data.samples) // BATCH)
    try:
        found = gather(
            _values(short, [branch for branch, _ in free.values()], data, batches, runtime),
            {name: axis for name, (_, axis) in free.items()},
            batches,
        )
    except ModelError:
        return {}
    return {name: (free[name][0], _of_kinds(short, *free[name], collected)) for name, collected in found.items()}


def _of_kinds(short: Shortened, branch: Branch, axis: int, collected: Collected) -> dict[str, tuple[Substitute, float]]:
    """Return for each kind the substitute, and the share of what the branch gave that it does not give."""
    rank, total, result = len(short.trace.shapes[branch.skip]), sum_of(branch), {}
    for kind in KINDS:
        weights, error = collected.fitted(kind)
        idle = Substitute.idle(total, kind, axis, rank, collected.channels)
        result[kind] = (with_values(idle, weights), error)
    return result


def _best(short: Shortened, branch: Branch, kinds: Mapping[str, tuple[Substitute, float]]) -> Substitute | None:
    """Return the substitute that gives most of what a branch gave for its time, None where nothing is better."""
    times, whole = seconds(short.view, short.trace.shapes), cost(short.view, short.trace.shapes).seconds
    own = sum(times.get(node_key(node), 0.0) for node in (*branch.nodes, branch.end)) / whole
    gains = {kind: 1 - error - share_of(short, [one]) / max(own, 1e-12) for kind, (one, error) in kinds.items()}
    kind = max(gains, key=lambda name: gains[name])
    return kinds[kind][0] if gains[kind] > 0 else None


def _worth_most(
    short: Shortened,
    candidates: Sequence[tuple[Substitute, ...]],
    data: Data,
    runtime: Runtime,
    trial: Trial,
    at_target: bool,
) -> tuple[Substitute, ...]:
    """Return the candidate that repairs most for its time, by the error of the outputs on held-out samples."""
    fit, held = parts(short.whole, data, len(candidates) + 1)
    distance = Distance(short.whole, held, runtime)
    broken = distance.of(trial((), fit))
    saved = 1 - cost_of(short.model, _sizes(short)).seconds / cost(short.view, short.trace.shapes).seconds
    best, chosen = 0.0, tuple[Substitute, ...]()
    for candidate in dict.fromkeys(candidates):
        try:
            repaired = 1 - distance.of(trial(candidate, fit)) / max(broken, 1e-30)
        except NothingToPruneError:  # no widths leave room for it
            continue
        gain = repaired if at_target else repaired - share_of(short, candidate) / max(saved, 1e-12)
        if gain > best:
            best, chosen = gain, candidate
    return chosen


def share_of(short: Shortened | None, substitutes: Sequence[Substitute]) -> float:
    """Return the predicted seconds of substitutes, as a share of the whole model's."""
    if short is None or not substitutes:
        return 0.0
    before = cost(short.view, short.trace.shapes).seconds
    with_them = merged(put_in(short.model, [s.idled for s in substitutes]), [s.total for s in substitutes])
    return max(0.0, cost_of(with_them, _sizes(short)).seconds - cost_of(short.model, _sizes(short)).seconds) / before


def goal_left(options: PruneOptions, short: Shortened | None, substitutes: Sequence[Substitute]) -> PruneOptions:
    """Return the options whose target leaves room for what substitutes need."""
    if short is None or not substitutes or options.budget is None:
        return options
    name, goal = options.budget
    if name == "latency":
        more = share_of(short, substitutes)
    else:
        models = (
            short.model,
            merged(put_in(short.model, [s.idled for s in substitutes]), [s.total for s in substitutes]),
        )
        views = [View(model) for model in models]
        shaped = [Whole(view, trace(view, _sizes(short))) for view in views]
        before, after = (MEASURES[name](part, whole_of(short))({}) for part in shaped)
        more = after - before
    left: dict[str, Any] = {name: max(goal - more, goal / 2)}
    return replace(options, **left)


def with_substitutes(result: PruneResult) -> PruneResult:
    """Return the result with substitutes in the place of dropped branches, as wide as what is left."""
    if not result.substitutes:
        return result
    kept = kept_positions(result.channels, result.keep)
    narrow = []
    for substitute in result.substitutes:
        axes = kept.get(substitute.total)
        positions = axes[substitute.axis] if axes is not None else None
        narrow.append(substitute if positions is None else substitute.narrowed(positions))
    return replace(result, model=put_in(result.model, narrow))


def _sizes(short: Shortened) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the inputs that are left, as the whole model was traced."""
    return {name: short.trace.shapes[name] for name in short.view.inputs if name not in short.inputs}


def _axis(short: Shortened, branch: Branch) -> int | None:
    """Return the axis of the channels that a substitute maps; None where none can be told, or its size moves."""
    shape = short.trace.shapes.get(branch.skip)
    axis = channel_axis(short.view, branch, len(shape)) if shape else None
    moving = axis is None or short.trace.dynamic(branch.skip)[axis]
    floats = short.trace.data_type(branch.skip) in (1, 10, 11)
    return None if moving or not floats or branch.end.graph is not short.whole.proto.graph else axis


def _values(
    short: Shortened, branches: Sequence[Branch], data: Data, batches: int, runtime: Runtime
) -> Iterator[dict[str, tuple[Array, Array]]]:
    """Yield for every batch what enters and what leaves each branch of the whole model."""
    names = [name for branch in branches for name in (branch.end.proto.input[1 - branch.place], _branch_end(branch))]
    biases = {branch.name: _bias(short.whole, branch) for branch in branches}
    made = [name for name in dict.fromkeys(names) if name not in short.view.inputs]
    proto = observed(short.whole, made)
    folder, threads = short.whole.folder, runtime.threads or None
    with open_session(proto, threads=threads, provider=runtime.provider, folder=folder) as session:
        for number, feed in enumerate(data.batches(BATCH)):
            if number == batches:
                return
            found = {**feed, **dict(zip(made, session.values(made, feed), strict=True))}
            yield {
                b.name: (found[b.end.proto.input[1 - b.place]], found[_branch_end(b)] + biases[b.name])
                for b in branches
            }


def _branch_end(branch: Branch) -> str:
    return str(branch.end.proto.input[branch.place])


def _bias(model: Model, branch: Branch) -> Array | float:
    """Return the bias that a norm adds to the branch."""
    inputs, index = branch.end.proto.input, BIASES.get(branch.end.op_type)
    if branch.end.op_type not in SKIP_NORMS or index is None or len(inputs) <= index or not inputs[index]:
        return 0.0
    stored = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    tensor = stored.get(inputs[index])
    return np.asarray(model.array(tensor)) if tensor is not None else 0.0
