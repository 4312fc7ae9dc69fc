"""Blocks of state spaces: inner width, state size and rank of the step go, and zeroing them is removing them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.channels.halving import halve
from tests.micro.build import Net
from tests.state_space import convolved, heads, selective

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
