"""Statistics of one streamed pass are those of all activations at once, and come from the cache the second time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import DataError
from onnxprune.graph.model import Model, load
from onnxprune.graph.session import Session
from onnxprune.statistics import cache
from onnxprune.statistics.collect import Wanted, collect, shard_work
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs

RNG = np.random.default_rng(7)
VALUES = RNG.normal(0.5, 1, size=(19, 3, 5, 4)).astype(np.float32)
WEIGHT = RNG.normal(size=(6, 3, 1, 1)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model_and_data() -> tuple[Model, Data]:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    ends = [helper.make_tensor_value_info(name, 1, ["n", size, 5, 4]) for name, size in (("x", 3), ("y", 6))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w")])
    model = Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return model, read({"x": VALUES}, input_specs(model.proto))


def test_streamed_sums_are_those_of_all_activations() -> None:
    model, data = model_and_data()
    found = collect(model, data, [Wanted("x", 1), Wanted("y", 1)], threads=1)
    y = np.maximum(np.einsum("oc,nchw->nohw", WEIGHT[:, :, 0, 0], VALUES), 0)
    for name, array in {"x": VALUES, "y": y}.items():
        rows = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1]).astype(np.float64)
        given = found[name]
        assert given.count == len(rows)
        for value, expected in [
            (given.mean, rows.mean(0)),
            (given.abs_mean, np.abs(rows).mean(0)),
            (given.variance, rows.var(0)),
            (given.zero_share, (rows == 0).mean(0)),
            (given.gram, rows.T @ rows / len(rows)),
            (given.covariance, np.cov(rows.T, bias=True)),
        ]:
            np.testing.assert_allclose(value, expected, atol=1e-5)


def test_a_second_call_reads_the_cache_and_other_data_do_not(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_and_data()
    first = collect(model, data, [Wanted("y", 1)], threads=1)
    assert len(list(own_cache.rglob("*.statistics"))) == 1
    monkeypatch.setattr("onnxprune.statistics.collect.all_sums", lambda *_: pytest.fail("ran again"))
    again = collect(model, data, [Wanted("y", 1)], threads=1)
    np.testing.assert_array_equal(again["y"].gram, first["y"].gram)
    assert again["y"].count == first["y"].count
    with pytest.raises(pytest.fail.Exception, match="ran again"):
        collect(model, read({"x": VALUES[:5]}, data.inputs), [Wanted("y", 1)], threads=1)


def test_a_damaged_or_forbidden_cache_is_no_error(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_and_data()
    first = collect(model, data, [Wanted("y", 1)], threads=1)
    for file in own_cache.rglob("*.statistics"):
        file.write_bytes(b"damaged")
    assert collect(model, data, [Wanted("y", 1)], threads=1)["y"].mean.tolist() == first["y"].mean.tolist()
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")
    assert cache.folder() is None
    assert "y" in collect(model, data, [Wanted("y", 1)], threads=1)


def test_gram_matrices_that_do_not_fit_are_left_out_and_named() -> None:
    model, data = model_and_data()
    found = collect(model, data, [Wanted("x", 1), Wanted("y", 1)], threads=1, memory_bytes=8 * 9 + 8)
    assert found["x"].gram is not None
    assert found["y"].gram is None
    assert any("'y'" in note for note in found.notes)


def test_a_tensor_that_is_not_there_is_refused() -> None:
    model, data = model_and_data()
    with pytest.raises(DataError, match="'z' is not in the main graph"):
        collect(model, data, [Wanted("z", 1)])


def test_external_weights_are_read_from_the_folder_of_the_model(tmp_path: Path) -> None:
    model, data = model_and_data()
    inside = collect(model, data, [Wanted("y", 1)], threads=1)
    onnx.save(model.proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    outside = collect(load(tmp_path / "m.onnx"), data, [Wanted("y", 1)], threads=1)
    np.testing.assert_allclose(outside["y"].mean, inside["y"].mean)


def test_tensors_of_one_pool_add_up() -> None:
    """Rows of both, as if they were one tensor."""
    model, data = model_and_data()
    both = collect(model, data, [Wanted("x", 1, pool="both"), Wanted("c", 1, pool="other")], threads=1)
    assert set(both.tensors) == {"both", "other"}
    twice = collect(model, data, [Wanted("y", 1, pool="p"), Wanted("c", 1, pool="p")], threads=1)["p"]
    c, y = (collect(model, data, [Wanted(name, 1)], threads=1)[name] for name in ("c", "y"))
    assert twice.count == c.count + y.count
    # float32 products of other blocks
    np.testing.assert_allclose(twice.gram, (c.gram + y.gram) / 2, rtol=1e-5)
    np.testing.assert_allclose(twice.mean, (c.mean + y.mean) / 2, rtol=1e-5)


def test_fewer_samples_run_at_a_time_where_they_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = model_and_data()
    sizes: list[int] = []
    run = Session.values
    monkeypatch.setattr(
        Session, "values", lambda self, names, feed: sizes.append(len(feed["x"])) or run(self, names, feed)
    )
    plain = collect(model, data, [Wanted("y", 1)], threads=1)["y"]
    assert sizes[1] == 8
    del sizes[:]
    # a sample of x and y has 180 numbers of 4 bytes; a quarter of the memory holds two
    bounded = collect(model, data, [Wanted("y", 1)], threads=1, memory_bytes=4 * 2 * 180 * 4)["y"]
    assert set(sizes[1:-1]) == {2}
    np.testing.assert_allclose(bounded.gram, plain.gram, rtol=1e-5)


def test_sums_are_added_shard_by_shard_whoever_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a crew, and statistics of several files, give the same bytes."""
    from onnxprune.statistics.shards import all_sums, shard_size

    model, data = model_and_data()
    size = shard_size(data, 3)
    assert data.samples > size
    work, _ = shard_work(model, data, [Wanted("y", 1)], threads=1, size=size)
    whole, sizes = all_sums(work)
    assert sum(sizes) == data.samples
    parts = [work.sums(number)["y"] for number in reversed(range(len(sizes)))][::-1]  # read in another order
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    np.testing.assert_array_equal(whole["y"].gram, total.gram)
    np.testing.assert_array_equal(whole["y"].rows, total.rows)
    with pytest.raises(ValueError, match="tensors that differ"):
        total.plus(replace(parts[0], axis=2))
