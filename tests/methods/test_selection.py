"""select: the samples that stand for all are found, whatever the last layer reads; labels stay with their samples."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.compensate.draws import draws_of
from onnxprune.graph.model import load
from onnxprune.methods.finetuning.labels import labels_of
from onnxprune.methods.selection import chosen, features, penultimate, representatives, rest_of, selected
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.split import places
from tests import networks

DRAW = np.random.default_rng(2)
NET = networks.convnet(width=16)


def clusters(count: int = 60, kinds: int = 6) -> np.ndarray:
    """Return samples of a few kinds, nearly the same within one, the first kinds far more often."""
    centres = DRAW.standard_normal((kinds, 3, 12, 12)) * 2
    kind = np.sort(np.concatenate([np.arange(kinds), DRAW.integers(2, size=count - kinds)]))
    return (centres[kind] + 0.01 * DRAW.standard_normal((count, 3, 12, 12))).astype(np.float32)


def data(proto: onnx.ModelProto, x: Any) -> Data:
    return read({"x": x} if isinstance(x, np.ndarray) else x, input_specs(proto))


def test_one_sample_of_every_kind_is_chosen_before_any_kind_comes_twice() -> None:
    x = clusters()
    found = selected(load(NET), data(NET, x), 6)
    taken = np.concatenate([feed["x"] for feed in found.batches(8)])
    assert found.samples == len(taken) == 6
    apart = np.square(taken[:, None] - taken[None]).mean((2, 3, 4))
    assert apart[~np.eye(6, dtype=bool)].min() > 1


@pytest.mark.parametrize("seed", range(3))
def test_those_chosen_stand_nearer_to_all_than_as_many_by_chance(seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((200, 4)).astype(np.float32)
    found = representatives(rows, 20)
    assert len(set(found.tolist())) == 20

    def far(some: np.ndarray) -> float:
        return float(np.square(rows[:, None] - rows[some]).sum(2).min(1).sum())

    chance = [far(np.random.default_rng(number).choice(200, 20, replace=False)) for number in range(20)]
    assert far(found) < 0.9 * min(chance)


def two_outputs() -> onnx.ModelProto:
    """A map of positions and a classifier: the second of the layers reads (samples, positions, channels)."""
    proto = networks.convnet(width=16)
    made = [
        helper.make_node("Transpose", ["r1"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "rows"], ["rows_of_all"]),
        helper.make_node("MatMul", ["rows_of_all", "w4"], ["map"]),
    ]
    proto.graph.node.extend(made)
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([-1, 16], np.int64), "rows"),
            numpy_helper.from_array(DRAW.standard_normal((16, 2)).astype(np.float32), "w4"),
        ]
    )
    proto.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, None))
    return proto


def no_layer() -> onnx.ModelProto:
    node = helper.make_node("Relu", ["x"], ["y"])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 12, 12]) for name in "xy"]
    return networks.model([node], ports[:1], ports[1:])


READ = {
    "a classifier": (NET, {"flat": 1}, 16),
    "two outputs, one of them rows of all samples": (two_outputs(), {"flat": 1, "rows_of_all": -1}, 48),
    "no layer with weights": (no_layer(), {"y": 1}, 6),
}


@pytest.mark.parametrize("name", READ)
def test_features_are_what_the_last_layers_read(name: str) -> None:
    proto, wanted, width = READ[name]
    assert penultimate(proto.graph) == wanted
    # 45 is no multiple of how many run at once
    rows = features(load(proto), data(proto, DRAW.standard_normal((45, 3, 12, 12)).astype(np.float32)))
    assert rows.shape == (45, width)
    assert (np.isclose(rows.std(0), 1, atol=5e-3) | (rows.std(0) == 0)).all() and (rows.std(0) > 0).mean() > 0.9


def test_features_do_not_depend_on_what_runs_together() -> None:
    x = DRAW.standard_normal((40, 3, 12, 12)).astype(np.float32)
    single = [{"x": x[number : number + 1]} for number in range(40)]
    for proto in (NET, two_outputs()):
        whole, alone = (features(load(proto), data(proto, given)) for given in (x, single))
        np.testing.assert_allclose(whole, alone, atol=1e-3)


def test_a_fixed_batch_asks_for_as_many() -> None:
    proto = networks.convnet(batch=8, width=16)
    found = selected(load(proto), data(proto, clusters(64)), 16)
    assert [len(feed["x"]) for feed in found.batches(16)] == [8, 8]
    with pytest.raises(onnxprune.UsageError, match="the model takes 8 samples at once"):
        chosen(load(proto), data(proto, clusters(64)), 7)


def test_all_are_taken_where_there_are_no_more_and_labels_stay_with_their_samples() -> None:
    x = clusters()
    given = data(NET, x)
    assert selected(load(NET), given, 60) is given and selected(load(NET), given, None) is given
    some = selected(load(NET), given, 7)
    labels = labels_of(np.arange(60), some, None)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in some.batches(8)]), x[labels])


def test_a_prune_is_fitted_to_those_chosen_and_says_so() -> None:
    x = clusters(80)
    result = onnxprune.prune(NET, {"x": x}, ratio=0.5, compensate="lstsq", select=20)
    # so few images are turned and mirrored as well
    assert result.samples is not None and result.samples.samples == 4 * 20
    assert result.report is not None and result.report.details["data"]["selected"] == 20
    with pytest.raises(onnxprune.UsageError, match="select 20 chooses among inputs"):
        onnxprune.prune(NET, ratio=0.5, select=20)


def test_what_was_not_chosen_judges_the_steps() -> None:
    given = data(NET, clusters())
    some = selected(load(NET), given, 9)
    spare = rest_of(given, some)
    assert spare is not None
    both = np.concatenate([places(some), places(spare)])
    np.testing.assert_array_equal(np.sort(both), np.arange(60))
    specs = input_specs(NET)
    whole = draws_of(list(some.batches(4)), specs, 4, 4, list(spare.batches(8)))
    assert whole.samples == 9 and len(whole.held["x"]) == 51
    other = draws_of(list(some.batches(4)), specs, 4, 4, [{"x": np.zeros((2, 3, 5, 5), np.float32)}])
    assert other.samples == 8 and len(other.held["x"]) == 1
