"""Blocks of state spaces: inner width, state size and rank of the step go, and zeroing them is removing them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxprune.channels.analyse import analyse
from onnxprune.graph.model import Model
from tests.channels.halving import halve
from tests.micro.build import Net, TensorProto, helper
from tests.state_space import convolved, heads, loops, selective

MAMBA = {selective.INNER, selective.STATE, selective.RANK, selective.WIDTH}
SCALARS = {heads.STATE, selective.WIDTH}

Draw = Callable[[], Net]
CASES: dict[str, tuple[Draw, set[int], set[int]]] = {
    "time loop written out": (lambda: selective.unrolled("narrow"), MAMBA, MAMBA),
    "time loop in the layout (batch, inner, time)": (lambda: selective.unrolled("wide"), MAMBA, MAMBA),
    "norms over step, B and C": (
        lambda: selective.unrolled("narrow", norms=True),
        MAMBA,
        {selective.INNER, selective.WIDTH},
    ),
    "cumulative sums": (lambda: selective.summed("sums"), MAMBA, MAMBA),
    "prefix sums of doubling stride": (lambda: selective.summed("doubling"), MAMBA, MAMBA),
    "chunks, two groups of heads": (heads.chunked, SCALARS | {heads.SIZE}, SCALARS),
    "chunks, one group": (lambda: heads.chunked(groups=1), SCALARS | {heads.HEADS}, SCALARS),
    "chunks, a group for each head": (lambda: heads.chunked(groups=heads.HEADS), SCALARS | {heads.SIZE}, SCALARS),
    "chunks as Einsum": (lambda: heads.chunked("einsum", groups=1), SCALARS | {heads.HEADS}, SCALARS),
    "product of transforms": (lambda: convolved.diagonal("transform"), {24, 6, 16}, {24, 6, 16}),
    "product of transforms, kernel stored": (lambda: convolved.diagonal("transform", True), {24, 16}, {24, 16}),
    "long convolution": (lambda: convolved.diagonal("kernel"), {24, 6, 16}, {24, 6, 16}),
    "states that channels share": (convolved.shared, {24, 6, 16}, {24, 6, 16}),
}
"""Name -> drawing, sizes of the groups that are pruned, sizes of those among them that are exact."""


@pytest.mark.parametrize("name", CASES)
def test_widths_and_states_go(name: str) -> None:
    draw, sizes, exact = CASES[name]
    halved = halve(draw())
    groups = [group for group in halved.channels.groups if group.active]
    assert {group.size for group in groups} == sizes
    assert {group.size for group in groups if group.exact} == exact
    assert halved.share < 0.36


def test_channels_of_a_depthwise_convolution_are_no_groups() -> None:
    assert not {"group"} & {group.kind for group in halve(heads.chunked()).channels.groups}


LOOPS = {
    "slices": "Scan",
    "captured": "Scan",
    "weights": "Scan",
    "second": "Scan",
    "loop": "Loop",
    "growing": "Loop",
}


@pytest.mark.parametrize("style", LOOPS)
def test_widths_and_states_go_inside_bodies_of_loops(style: str) -> None:
    halved = halve(loops.scanned(style))
    groups = [group for group in halved.channels.groups if group.active]
    assert {group.size for group in groups} == {group.size for group in groups if group.exact} == MAMBA
    assert halved.share < 0.31
    body = next(a.g for a in halved.node(LOOPS[style]).attribute if a.name == "body")
    sizes = {dim.dim_value for value in (*body.input, *body.output) for dim in value.type.tensor_type.shape.dim} - {0}
    assert sizes <= {selective.INNER // 2, selective.STATE // 2, selective.RANK // 2}


def test_a_loop_whose_state_becomes_another_one_of_the_same_size_ties_both() -> None:
    net = Net()
    x = net.linear(net.input("n", 6), 6, 12)
    body = net.child()
    number, going, one, two = (body.fresh(stem) for stem in ("number", "going", "one", "two"))
    kinds = [(TensorProto.INT64, []), (TensorProto.BOOL, []), *[(TensorProto.FLOAT, ["n", 12])] * 2]
    for name, kind in zip((number, going, one, two), kinds, strict=True):
        body.inputs.append(helper.make_tensor_value_info(name, *kind))
    body.output(body.Identity(going), body.Tanh(two), body.Tanh(one))  # they change places every turn
    start = net.linear(x, 12, 12)
    found = net.Loop(np.array(3), net.constant(np.array(True)), x, start, body=body.graph(kinds[1:]), outputs=2)
    net.output(net.linear(net.Add(*found), 12, 4))
    halved = halve(net)
    assert [group.size for group in halved.channels.groups] == [12] and halved.share < 0.6


def test_a_loop_of_a_state_whose_type_is_no_tensor_is_left_alone() -> None:
    net = Net()
    x = net.linear(net.linear(net.input("n", 6), 6, 8), 8, 12)
    body = net.child()
    names = [body.fresh(stem) for stem in ("number", "going", "list")]
    kinds = [helper.make_tensor_type_proto(TensorProto.INT64, []), helper.make_tensor_type_proto(TensorProto.BOOL, [])]
    kinds.append(helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None)))
    body.inputs += [helper.make_value_info(name, kind) for name, kind in zip(names, kinds, strict=True)]
    going, listed = body.Identity(names[1]), body.SequenceInsert(names[2], x)
    outputs = [helper.make_value_info(name, kind) for name, kind in zip((going, listed), kinds[1:], strict=True)]
    graph = helper.make_graph(body.nodes, "body", body.inputs, outputs, body.initializers)
    found = net.Loop(np.array(2), net.constant(np.array(True)), net.SequenceConstruct(x), body=graph)
    net.output(net.linear(net.ConcatFromSequence(found, axis=0), 12, 4))
    model = net.model()
    channels = analyse(Model(model))
    assert [group.size for group in channels.groups] == [8]
    assert any("SequenceConstruct" in lock.reason for lock in channels.locks)
