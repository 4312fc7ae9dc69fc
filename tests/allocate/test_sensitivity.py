"""Budgets that are spent where an error buys most."""

import numpy as np
import pytest

import onnxprune
from onnxprune.allocate.measured_errors import Curve, knapsack, units_of
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
    from onnxprune.allocate.request import Request

    groups = analyse(onnxprune.load(convnet())).groups
    scores = {group.name: np.arange(32.0) for group in groups}
    request = Request(groups, scores, "sensitivity", align=1)
    widths = list(range(32, 3, -1))
    table = {group.name: Curve(widths, np.linspace(0, cost, 29)) for group, cost in zip(groups, (1, 100), strict=True)}

    def measure(keep):
        return sum(keep[g.name].sum() if g.name in keep else 32 for g in groups) / 64

    keep = knapsack(request, measure, 0.7, "macs", table)
    assert keep[groups[0].name].sum() <= 14 and groups[1].name not in keep
