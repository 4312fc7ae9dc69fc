"""Each criterion against its formula, on groups made by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.channels.groups import ChannelGroup, Site
from onnxprune.errors import UsageError
from onnxprune.graph.model import Model
from onnxprune.graph.view import View
from onnxprune.score import group_slices as slices_module
from onnxprune.score.criteria import names
from onnxprune.score.criterion import criterion
from onnxprune.score.group_slices import SlicedWeights, maximum, sum_of_absolutes, sum_of_squares
from onnxprune.score.scoring import randomized, score_groups


def view_of(nodes: list[onnx.NodeProto] = [], **arrays: np.ndarray) -> View:  # noqa: B006
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    return View(Model(helper.make_model(helper.make_graph(nodes, "g", inputs, [], tensors))))


def site(tensor: str, axis: int, size: int, role: str = "writes", positions: np.ndarray | None = None) -> Site:
    return Site(tensor, axis, np.arange(size)[:, None] if positions is None else positions, role)


def group(*sites: Site, name: str = "g") -> ChannelGroup:
    size = len(sites[0].positions)
    return ChannelGroup(name, "channel", np.arange(size), sites, True, True)


def scores(view: View, of: ChannelGroup, name: str) -> np.ndarray:
    return score_groups(view, [of], name)[0][of.name]


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "size", "formula"),
    [
        ("l1", lambda m: np.abs(m).sum(1).mean(), lambda m: np.abs(m).sum(1)),
        ("l2", lambda m: np.sqrt((m**2).sum(1).mean()), lambda m: np.sqrt((m**2).sum(1))),
        ("linf", lambda m: np.abs(m).max(1).mean(), lambda m: np.abs(m).max(1)),
        (
            "fpgm",
            lambda m: np.sqrt((m**2).sum(1).mean()),
            lambda m: np.linalg.norm(m[:, None] - m[None], axis=2).sum(1),
        ),
    ],
)
def test_a_score_is_its_formula_over_all_writers_at_one_size_divided_by_its_mean(name, size, formula):
    a, b = weights(6, 3, 2, 2), 9 * weights(5, 12, seed=1)
    twice = np.arange(12).reshape(6, 2)
    of = group(site("a", 0, 6), site("b", 1, 6, positions=twice), site("r", 1, 6, "reads"))
    writers = [a.reshape(6, -1).astype(np.float64), b.T.reshape(6, -1).astype(np.float64)]
    rows = np.concatenate([m / size(m) for m in writers], axis=1)
    expected = formula(rows) / formula(rows).mean()
    # float32 sums of some thirty terms
    np.testing.assert_allclose(scores(view_of(a=a, b=b, r=weights(4, 6)), of, name), expected, rtol=1e-5)


def test_cosine_puts_the_weaker_of_two_twins_first_whatever_the_sign():
    w = weights(5, 40)
    w[3] = -0.5 * w[1]
    order = np.argsort(scores(view_of(w=w), group(site("w", 0, 5)), "cosine"))
    assert order[:2].tolist() == [3, 1]


def test_lamp_is_the_share_of_energy_among_the_channels_not_weaker():
    w = np.array([[1.0], [3.0], [2.0]], dtype=np.float32)
    found = scores(view_of(w=w), group(site("w", 0, 3)), "lamp")
    np.testing.assert_allclose(found, [1 / 14, 1.0, 4 / 13])


def test_bn_scale_reads_gamma_and_says_where_there_is_none():
    gamma = np.array([0.5, -2.0, 1.0], dtype=np.float32)
    norm = helper.make_node("BatchNormalization", ["x", "gamma", "o", "o", "o"], ["y"])
    view = view_of([norm], gamma=gamma, o=np.ones(3, np.float32), w=weights(3, 4))
    with_norm = group(site("w", 0, 3), site("gamma", 0, 3, "scales"), site("o", 0, 3, "scales"), name="with")
    found, notes = score_groups(view, [with_norm, group(site("w", 0, 3), name="without")], "bn-scale")
    np.testing.assert_allclose(found["with"], np.abs(gamma) / np.abs(gamma).mean())
    np.testing.assert_allclose(found["without"], scores(view, with_norm, "l2"))
    assert notes == ["score bn-scale: 1 of 2 groups has no BatchNorm scale (folded or never there), so l2 is used"]


def test_random_depends_on_seed_and_name_but_not_on_the_company():
    a, b = group(site("w", 0, 4), name="a"), group(site("w", 0, 4), name="b")
    view = view_of(w=weights(4, 4))
    both, alone = score_groups(view, [a, b], "random", seed=7)[0], score_groups(view, [b], "random", seed=7)[0]
    assert both["b"].tolist() == alone["b"].tolist() != both["a"].tolist()
    assert score_groups(view, [b], "random", seed=8)[0]["b"].tolist() != alone["b"].tolist()


def test_a_quantised_weight_is_scored_by_what_it_stands_for():
    q = np.array([[10, 12], [130, 127], [90, 90]], dtype=np.uint8)
    scale, zero = np.array([1.0, 1.0, 0.01], np.float32), np.array([10, 128, 0], np.uint8)
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0)
    found = scores(view_of([node], q=q, s=scale, z=zero), group(site("q", 0, 3)), "l1")
    np.testing.assert_allclose(found, np.array([2.0, 3.0, 1.8]) / np.mean([2.0, 3.0, 1.8]), rtol=1e-6)


def test_a_group_that_nothing_writes_is_scored_by_its_readers():
    w, b = weights(3, 4), weights(4)
    of = group(site("b", 0, 4, "scales"), site("w", 1, 4, "reads"))
    expected = np.linalg.norm(w, axis=0)
    np.testing.assert_allclose(scores(view_of(w=w, b=b), of, "l2"), expected / expected.mean(), rtol=1e-6)


def test_a_channel_that_is_not_a_number_is_the_most_important():
    w = weights(3, 4)
    w[1, 2] = np.nan
    found = scores(view_of(w=w), group(site("w", 0, 3)), "l2")
    assert np.isinf(found[1]) and np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("reduction", [sum_of_absolutes, sum_of_squares, maximum])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_reducing_in_blocks_is_reducing_at_once(monkeypatch, reduction, axis):
    w = weights(7, 6, 5)
    whole = SlicedWeights(view_of(w=w)).reduced(site("w", axis, w.shape[axis]), reduction)
    monkeypatch.setattr(slices_module, "BLOCK_ELEMENTS", 60)
    in_blocks = SlicedWeights(view_of(w=w)).reduced(site("w", axis, w.shape[axis]), reduction)
    np.testing.assert_allclose(whole, in_blocks, rtol=1e-5)  # other order of float32 sums


def test_registering_a_name_twice_raises():
    with pytest.raises(ValueError, match="twice"):
        criterion("l2")(lambda slices: np.zeros(0))


def test_an_unknown_score_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'fpgm'"):
        score_groups(view_of(), [], "fgpm")


def test_every_score_says_its_formula_and_source():
    from onnxprune.score.criteria import SCORES

    assert names()[0] == "l2"
    for entry in SCORES.values():
        assert entry.summary
        assert entry.name == "random" or ("Source:" in entry.function.__doc__ and "s[c]" in entry.function.__doc__)


def test_chance_moves_a_score_by_a_share_of_itself_and_by_the_seed_alone():
    view, of = view_of(w=weights(64, 3)), group(site("w", 0, 64))
    plain = scores(view, of, "l2")
    moved = [score_groups(view, [of], "l2", seed, None, 0.1)[0]["g"] for seed in (1, 1, 2)]
    assert np.array_equal(moved[0], moved[1]) and not np.array_equal(moved[0], moved[2])
    shares = np.log(moved[0] / plain)
    assert 0.07 < shares.std() < 0.13 and abs(shares.mean()) < 0.04
    infinite = randomized(np.array([1.0, np.inf]), 3.0, np.random.default_rng(0))
    assert np.isinf(infinite[1]) and np.isfinite(infinite[0])
