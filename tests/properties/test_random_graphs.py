"""Laws that hold for any network: masked parity, and what must not matter."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxprune
from onnxprune import Plan
from onnxprune.channels.rewrite import rewrite
from onnxprune.errors import NothingToPruneError
from onnxprune.evidence.oracle import masked_model
from tests import plain
from tests.oracle import parity, random_inputs, relative_error, run
from tests.properties.graphs import networks

EXACT_LEVELS = ("disabled", "basic")  # the higher ones compute products of dequantized weights in integers
FEW = settings(max_examples=max(20, settings.default.max_examples // 5))


def prune(proto: onnx.ModelProto, **options) -> onnxprune.PruneResult | None:
    try:
        return plain.prune(proto, align=1, **options)
    except NothingToPruneError:
        return None


def test_most_random_graphs_can_be_pruned_and_every_exact_prune_equals_the_zeroed_original() -> None:
    outcomes: list[bool] = []

    @given(networks(), st.sampled_from((0.25, 0.5, 0.75)), st.integers(0, 9))
    def check(original: onnx.ModelProto, ratio: float, seed: int) -> None:
        result = prune(original, ratio=ratio, score="random", seed=seed, exact_only=True)
        outcomes.append(result is not None)
        if result is not None:
            assert not result.channels.state.defects
            # float32 through a dozen layers with products rounds to 1e-5; a wrong channel is above 1e-2
            assert parity(original, result.model.proto, result.plan.removed, EXACT_LEVELS) < 1e-3

    check()
    assert np.mean(outcomes) >= 0.9


@FEW
@given(networks(), st.integers(0, 9))
def test_a_full_prune_equals_the_original_with_norms_taken_over_what_stays(
    original: onnx.ModelProto, seed: int
) -> None:
    result = prune(original, ratio=0.5, score="random", seed=seed)
    if result is None:
        return
    onnx.checker.check_model(result.model.proto, full_check=True)
    feeds = random_inputs(original, np.random.default_rng(seed), 3)
    pruned, masked = result.model.proto, masked_model(result.channels, result.keep).proto
    pairs = zip(run(masked, feeds), run(pruned, feeds), strict=True)
    assert [v.shape for v in run(pruned, feeds, "all")] == [v.shape for v in run(original, feeds)]
    assert max(relative_error(a, b) for a, b in pairs) < 1e-3


@FEW
@given(networks())
def test_pruning_nothing_changes_nothing(original: onnx.ModelProto) -> None:
    assert plain.prune(original, ratio=0).model.proto == original


@FEW
@given(networks(), st.integers(0, 9))
def test_a_plan_survives_json_and_gives_the_same_bytes(original: onnx.ModelProto, seed: int) -> None:
    result = prune(original, ratio=0.5, score="random", seed=seed)
    if result is None:
        return
    again = plain.apply(original, Plan.from_json(result.plan.to_json()))
    assert again.model.proto.SerializeToString(deterministic=True) == result.model.proto.SerializeToString(
        deterministic=True
    )


@FEW
@given(networks(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_matter(original: onnx.ModelProto, random) -> None:
    other = reordered(original, random)
    assert channel_sets(original) == channel_sets(other)
    if original.graph.initializer:  # the order of weights in Constant nodes decides how an odd half is rounded
        one, two = prune(original, ratio=0.5), prune(other, ratio=0.5)
        assert (one and one.plan.removed) == (two and two.plan.removed)


def channel_sets(proto: onnx.ModelProto) -> set[frozenset]:
    """Return every group as the set of its channels, each the set of positions where it lives."""
    return {
        frozenset(
            frozenset((site.tensor, site.axis, *sorted(site.positions[channel].tolist())) for site in group.sites)
            for channel in range(group.size)
        )
        for group in onnxprune.analyse(proto).groups
    }


def test_pruning_some_groups_and_then_others_equals_pruning_all_at_once() -> None:
    compared: list[bool] = []

    @FEW
    @given(networks(), st.integers(0, 9))
    def check(original: onnx.ModelProto, seed: int) -> None:
        rng = np.random.default_rng(seed)
        channels = onnxprune.analyse(original)
        keep = {g.name: rng.permutation(g.size) >= g.size // 2 for g in channels.groups if g.active}
        first = {name: mask for name, mask in keep.items() if rng.integers(2)}
        rest = {name: mask for name, mask in keep.items() if name not in first}
        between = rewrite(channels, first)
        plan = after(channels.plan(rest), channels.plan(first), channels)
        compared.append(plan is not None)
        if plan is None:
            return
        at_once, in_turn = rewrite(channels, keep).proto, plain.apply(between, plan, force=True).model.proto
        feeds = random_inputs(original, np.random.default_rng(0), 2)
        pairs = zip(run(at_once, feeds), run(in_turn, feeds), strict=True)
        assert max(relative_error(a, b) for a, b in pairs) < 1e-5

    check()
    assert np.mean(compared) >= 0.5


def after(plan: Plan, first: Plan, channels: onnxprune.Channels) -> Plan | None:
    """Renumber a plan for the model that another plan left; None where either copies constants."""
    if plan.unshared or first.unshared:
        return None
    removed: dict[str, dict[int, list[int]]] = {}
    for tensor, axes in plan.removed.items():
        for axis, positions in axes.items():
            kept = np.ones(channels.view.parameters[tensor].dims[axis], dtype=bool)
            kept[first.removed.get(tensor, {}).get(axis, [])] = False
            number = np.cumsum(kept) - 1
            found = [int(number[p]) for p in positions if kept[p]]
            if found:
                removed.setdefault(tensor, {})[axis] = found
    return Plan("", removed)


def reordered(proto: onnx.ModelProto, random) -> onnx.ModelProto:
    """Return the model with its nodes in another topological order."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    waiting = list(copy.graph.node)
    made = {tensor.name for tensor in copy.graph.initializer} | {value.name for value in copy.graph.input} | {""}
    ordered = []
    while waiting:
        ready = [node for node in waiting if set(node.input) <= made]
        node = random.choice(ready)
        waiting.remove(node)
        made.update(node.output)
        ordered.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy
