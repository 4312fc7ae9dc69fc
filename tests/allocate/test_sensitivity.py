"""Budgets that are spent where an error buys most."""

import numpy as np
import pytest

import onnxprune
from onnxprune.allocate.alignment import Widths
from onnxprune.allocate.curve import Curve
from onnxprune.allocate.measured_errors import knapsack, units_of
from onnxprune.allocate.request import Request
from onnxprune.allocate.targets import nearest
from onnxprune.channels.analyse import analyse
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph import count
from onnxprune.score.probe import refit_rows
from tests import plain
from tests.networks import convnet


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


@pytest.fixture
def data():
    return {"x": np.random.default_rng(0).standard_normal((48, 3, 12, 12)).astype(np.float32)}


def left(result, what=count.macs):
    shapes = [result.channels.shapes(keep) for keep in ({}, result.keep)]
    before, after = (sum(what(result.channels.view, s).values()) for s in shapes)
    return after / before


@pytest.mark.parametrize(("target", "what"), [("macs", count.macs), ("params", count.params)])
@pytest.mark.parametrize("goal", [0.3, 0.6])
def test_a_target_is_met_with_measured_errors(data, target, what, goal):
    result = plain.prune(convnet(), data, **{target: goal}, align=1)
    assert left(result, what) == pytest.approx(goal, rel=0.02)


def test_the_group_that_does_not_matter_loses_most(data):
    """Half of the second convolution's channels are never seen: its readers have no weights for them."""
    proto = convnet()
    weight = next(t for t in proto.graph.initializer if t.name == "w3")
    array = np.array(onnxprune.load(proto).array(weight))
    array[:, :24] = 0
    weight.raw_data = array.tobytes()
    result = plain.prune(proto, data, macs=0.4, align=1)
    kept = {t.name: t.dims[0] for t in result.model.proto.graph.initializer if t.name in ("w1", "w2")}
    assert kept["w2"] <= 14 < kept["w1"]


def test_tied_groups_keep_the_same_number(data):
    result = plain.prune(convnet(), data, macs=0.4, align=1, tie_blocks=True)
    first, second = (int(mask.sum()) for mask in result.keep.values())
    assert first == second < 32
    groups = result.channels.groups
    table = {group.name: Curve([32, 16], np.array([0.0, 1.0])) for group in groups}
    assert [len(unit.groups) for unit in units_of(groups, table, tie_blocks=False)] == [1, 1]


def test_an_unreachable_budget_says_how_far_it_got(data):
    with pytest.raises(NothingToPruneError, match=r"--macs 0.001 cannot be reached: .* is left"):
        plain.prune(convnet(), data, macs=0.001)


def test_measured_errors_need_data_and_a_budget():
    with pytest.raises(UsageError, match="give --data"):
        plain.prune(convnet(), macs=0.5, scope="sensitivity")
    with pytest.raises(UsageError, match="instead of a ratio"):
        plain.prune(convnet(), ratio=0.5, scope="sensitivity")


def test_refitted_rows_make_up_for_a_copy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3))
    x = np.concatenate([x, x[:, :1]], axis=1)
    rows = rng.standard_normal((4, 5))
    changed = refit_rows(rows, x.T @ x / 500, np.array([3]))
    assert not changed[3].any()
    np.testing.assert_allclose(x @ changed, x @ rows, atol=2e-2)


def test_a_knapsack_takes_what_is_cheapest_first(data):
    groups = analyse(onnxprune.load(convnet())).groups
    scores = {group.name: np.arange(32.0) for group in groups}
    request = Request(groups, scores, "sensitivity", rounding=Widths.of(1))
    widths = list(range(32, 3, -1))
    table = {group.name: Curve(widths, np.linspace(0, cost, 29)) for group, cost in zip(groups, (1, 100), strict=True)}

    def measure(keep):
        return sum(keep[g.name].sum() if g.name in keep else 32 for g in groups) / 64

    keep = knapsack(request, measure, 0.7, "macs", table)
    assert keep[groups[0].name].sum() <= 14 and groups[1].name not in keep


@pytest.fixture
def coarse():
    """A group of 32 in steps of 16, one of 32 in single steps that save little, and what they leave."""
    groups = analyse(onnxprune.load(convnet())).groups
    request = Request(groups, {group.name: np.arange(32.0) for group in groups}, "sensitivity", rounding=Widths.of(4))

    def measure(keep):
        first, second = (keep[g.name].sum() if g.name in keep else 32 for g in groups)
        return (31 * first + second) / 1024

    return request, measure, [group.name for group in groups]


def test_being_nearer_to_a_goal_that_is_met_roughly_is_not_worth_any_error(coarse):
    """The second group's channels go nearly for nothing in parameters, but each costs more than all of the first."""
    request, measure, (first, second) = coarse
    costs = {first: 0.01, second: 1.0}
    start = {first: 16, second: 32}
    goal = measure_of(measure, request, start) * 0.99

    def error(name, width):
        return costs[name] * (32 - width)

    assert nearest(request, measure, goal, start, error, dearest=0.1) == start
    assert nearest(request, measure, goal, start, error)[second] < 32


def test_steps_towards_a_goal_are_those_that_cost_least(coarse):
    request, measure, (first, second) = coarse
    start = {first: 32, second: 32}
    goal = 1 - 4 * 31 / 1024

    def error(name, width):
        return (0.01 if name == first else 1.0) * (32 - width)

    assert nearest(request, measure, goal, start, error, dearest=1.0) == {first: 28, second: 32}


def measure_of(measure, request, counts):
    return measure({g.name: np.arange(g.size) < counts[g.name] for g in request.groups})
