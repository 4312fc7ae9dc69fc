"""Targets are met where the steps are fine enough, and refused where they cannot be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.allocate.measures import MEASURES, measures
from onnxprune.allocate.targets import meet
from onnxprune.errors import NothingToPruneError
from tests.allocate.test_counts import group, request, site

SIZES = [64, 64, 128, 256, 256, 512]


def chain(**options):
    """Layers in a row; the cost of a layer is its width times the width before it."""
    groups = [group(f"g{i}", site(f"w{i}", size)) for i, size in enumerate(SIZES)]

    def measure(keep):
        widths = [3, *(int(keep[g.name].sum()) if g.name in keep else g.size for g in groups), 10]
        full = [3, *SIZES, 10]
        cost, whole = (sum(a * b for a, b in itertools.pairwise(w)) for w in (widths, full))
        return cost / whole

    return request(*groups, **options), measure


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("goal", [0.9, 0.5, 0.25, 0.1])
def test_a_target_is_hit_within_two_percent_on_aligned_widths(scope, goal):
    asked, measure = chain(scope=scope)
    keep = meet(asked, measure, goal, "macs")
    assert measure(keep) == pytest.approx(goal, rel=0.02)
    assert all(mask.sum() % 8 == 0 for mask in keep.values())


def test_few_groups_with_coarse_steps_are_moved_against_each_other():
    groups = [group("a", site("a", 64)), group("b", site("b", 32)), group("c", site("c", 48))]

    def measure(keep):
        a, b, c = (int(keep[g.name].sum()) if g.name in keep else g.size for g in groups)
        return (20 * a + a * b + b * c) / (20 * 64 + 64 * 32 + 32 * 48)

    asked = request(*groups)
    for goal in (0.8, 0.7, 0.6, 0.5):
        keep = meet(asked, measure, goal, "macs")
        assert measure(keep) == pytest.approx(goal, rel=0.035)  # steps of 8 out of 32 channels
        assert all(mask.sum() % 8 == 0 for mask in keep.values())


def test_one_removes_nothing():
    asked, measure = chain()
    assert measure(meet(asked, measure, 1.0, "macs")) == 1.0


def test_a_target_out_of_reach_says_how_far_it_gets():
    asked, measure = chain(min_channels=32)
    with pytest.raises(NothingToPruneError, match=r"--params 0.01 cannot be reached: .* 0\.02\d is left"):
        meet(asked, measure, 0.01, "params")


def test_groups_with_their_own_ratio_are_not_moved():
    asked, measure = chain(ratios={"g5": 0.5})
    keep = meet(asked, measure, 0.3, "macs")
    assert keep["g5"].sum() == 256
    assert measure(keep) == pytest.approx(0.3, rel=0.02)


def test_the_search_measures_few_choices():
    asked, measure = chain()
    calls = []
    meet(asked, lambda keep: calls.append(1) or measure(keep), 0.37, "macs")
    assert len(calls) < 60


def test_registering_a_measure_twice_raises():
    assert list(MEASURES) == ["macs", "params", "size"]
    with pytest.raises(ValueError, match="twice"):
        measures("macs")(lambda channels: lambda keep: float(np.nan))
