"""How many channels each group keeps."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.allocate.alignment import Widths
from onnxprune.allocate.counts import counts_at
from onnxprune.allocate.masks import best_channels
from onnxprune.allocate.request import Request
from onnxprune.channels.groups import ChannelGroup, Role, Site


def site(tensor: str, size: int, per_channel: int = 1, start: int = 0, axis: int = 0, role: Role = "writes") -> Site:
    return Site(tensor, axis, start + np.arange(size * per_channel).reshape(size, per_channel), role)


def group(name: str, *sites: Site, kind: str = "channel") -> ChannelGroup:
    return ChannelGroup(name, kind, np.arange(len(sites[0].positions)), sites, True, True)


def request(*groups: ChannelGroup, seed: int = 0, **options) -> Request:
    generator = np.random.default_rng(seed)
    options.setdefault("scores", {g.name: generator.random(g.size) for g in groups})
    options.setdefault("rounding", Widths.of(options.pop("align", None)))
    return Request(groups, **options)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("align", [None, 1, 8])
def test_removing_nothing_keeps_everything(scope, align):
    asked = request(group("a", site("a", 70)), group("b", site("b", 12)), scope=scope, align=align)
    assert counts_at(asked, 0.0) == {"a": 70, "b": 12}


@pytest.mark.parametrize(
    ("size", "align", "ratio", "kept"),
    [
        (64, None, 0.4, 40),
        (64, 1, 0.4, 38),
        (256, None, 0.4, 160),
        (24, None, 0.4, 14),
        (64, 32, 0.4, 32),
        (64, None, 0.01, 64),
        (64, None, 0.99, 8),
        (20, 32, 0.5, 10),  # shorter than the multiple: not aligned
        (5, 1, 0.99, 1),
    ],
)
def test_uniform_removes_the_ratio_up_to_alignment(size, align, ratio, kept):
    assert counts_at(request(group("a", site("w", size)), align=align), ratio) == {"a": kept}


def test_small_groups_on_one_axis_pass_their_rounding_on():
    pieces = [group(f"g{i}", site("w", 3, start=3 * i)) for i in range(20)]
    counts = counts_at(request(*pieces, align=1), 0.5)
    assert sum(counts.values()) == 30
    assert set(counts.values()) == {1, 2}


def test_the_length_of_a_shared_axis_is_aligned_with_what_is_locked_on_it():
    pieces = [group(f"g{i}", site("w", 6, start=6 * i)) for i in range(10)]
    counts = counts_at(request(*pieces, sizes={("w", 0): 63}), 0.5)
    assert (sum(counts.values()) + 3) % 8 == 0


def test_a_group_on_two_axes_is_counted_once_and_the_rest_makes_up_for_it():
    tied = group("tied", site("v", 5), site("w", 5))
    rest = group("rest", site("w", 5, start=5))
    counts = counts_at(request(tied, rest, align=1), 0.5)
    assert counts["tied"] + counts["rest"] == 5


def test_heads_need_no_alignment_and_positions_inside_them_do():
    heads = group("h", site("q", 12, per_channel=64), kind="head")
    inside = group("d", site("q", 64, per_channel=12), kind="head-dim")
    grouped = group("k", site("c", 32, per_channel=4), kind="group")
    assert [Widths().step(g, {}) for g in (heads, inside, grouped)] == [1, 8, 4]


def test_hidden_units_are_aligned_by_their_own_axis_not_by_that_of_the_gates():
    hidden = group("h", site("w", 64, per_channel=4), site("r", 64, axis=2, role="reads"))
    assert Widths().step(hidden, {}) == 8
    assert Widths.of(16).step(hidden, {}) == 16


def test_min_channels_and_own_ratios_hold_at_every_level():
    groups = [group("a", site("a", 40)), group("b", site("b", 3)), group("c", site("c", 40))]
    counts = counts_at(request(*groups, align=1, min_channels=5, ratios={"c": 0.25}), 0.99)
    assert counts == {"a": 5, "b": 3, "c": 30}


def test_global_takes_more_from_groups_with_low_scores_but_never_all():
    weak, strong = group("weak", site("a", 100)), group("strong", site("b", 100))
    scores = {"weak": np.linspace(0, 0.5, 100), "strong": np.linspace(0.6, 2, 100)}
    asked = request(weak, strong, scores=scores, scope="global", align=1)
    assert counts_at(asked, 0.25) == {"weak": 50, "strong": 100}
    assert counts_at(asked, 0.5) == {"weak": 10, "strong": 100}


def test_multiples_follow_the_length():
    assert [Widths().multiple(n) for n in (31, 32, 127, 128)] == [1, 8, 8, 16]


def test_the_best_stay_and_of_equals_the_first():
    one = group("a", site("a", 4))
    keep = best_channels((one,), {"a": np.array([1.0, 3.0, 1.0, 2.0])}, {"a": 3})
    assert keep["a"].tolist() == [True, True, False, True]
    assert best_channels((one,), {"a": np.ones(4)}, {"a": 4}) == {}


def test_groups_that_fill_an_axis_are_aligned_as_if_nothing_else_were_there():
    one, other = group("a", site("w", 6)), group("b", site("w", 6, start=6))
    for sizes in ({}, {("w", 0): 12}):
        assert counts_at(request(one, other, align=4, sizes=sizes), 1 / 3) == {"a": 4, "b": 4}
    more = counts_at(request(one, other, align=4, sizes={("w", 0): 13}), 1 / 3)
    assert more != {"a": 4, "b": 4}, "a position that stays anyway"
