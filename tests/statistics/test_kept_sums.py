"""Statistics as files: sums that add up to the same bytes, of one model, with samples that are told apart."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune import Gates, KeptSums, Run
from onnxprune.errors import DataError, UsageError
from onnxprune.graph.model import load
from onnxprune.statistics.data import read
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.kept_sums import read_sums
from onnxprune.statistics.marks import marks_of
from tests import networks

VALUES = np.random.default_rng(3).standard_normal((160, 3, 12, 12)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return networks.store(networks.convnet(width=16), tmp_path / "net.onnx")


def kept(model: Path, values: np.ndarray, path: Path | None = None, **options: Any) -> KeptSums:
    found = onnxprune.collect_statistics(model, {"x": values}, **{"shard": 40, **options})
    if path is not None:
        path.write_bytes(found.to_bytes())
    return found


def test_merged_shards_have_the_bytes_of_one_process(model: Path) -> None:
    whole = kept(model, VALUES)
    parts = [kept(model, VALUES[start : start + 40]) for start in range(0, 160, 40)]
    assert onnxprune.merge_statistics(parts).to_bytes() == whole.to_bytes()
    nested = onnxprune.merge_statistics([onnxprune.merge_statistics(parts[:2]), *parts[2:]])
    assert nested.to_bytes() == whole.to_bytes()
    assert len(whole.shards) == 4


def test_a_file_gives_back_what_it_was_made_of(model: Path, tmp_path: Path) -> None:
    found = kept(model, VALUES[:40], tmp_path / "a.stats", patches=True)
    again = read_sums(tmp_path / "a.stats")
    assert again.to_bytes() == found.to_bytes()
    assert again.facts() == found.facts()
    assert any(key.startswith("patches of ") for key in again.sums)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (lambda model: kept(networks.store(networks.convnet(1, width=16), model.parent / "b.onnx"), VALUES), "models"),
        (lambda model: kept(model, VALUES[:80], patches=True), r"options \(patches\)"),
        (lambda model: kept(model, VALUES[:80], run=Run(memory=1 << 20)), r"options \(memory\)"),
    ],
)
def test_statistics_that_differ_are_not_merged(model: Path, other: Any, why: str) -> None:
    with pytest.raises(UsageError, match=f"part 1 and part 2 are statistics of different {why}"):
        onnxprune.merge_statistics([kept(model, VALUES[80:]), other(model)])


def test_a_shard_is_counted_once(model: Path) -> None:
    with pytest.raises(UsageError, match="part 2 has samples that part 1 has too"):
        onnxprune.merge_statistics([kept(model, VALUES[:80]), kept(model, VALUES[40:80])])


def test_a_sample_has_one_mark_whatever_it_is_batched_with(model: Path) -> None:
    specs = input_specs(load(model).proto)
    whole, part = (marks_of(read({"x": values}, specs)) for values in (VALUES, VALUES[7:9]))
    np.testing.assert_array_equal(whole[7:9], part)
    assert len(set(whole.tolist())) == len(VALUES)


def damaged(path: Path, change: Any) -> Path:
    with np.load(path) as arrays:
        table = dict(arrays)
    change(table)
    with path.open("wb") as file:
        np.savez(file, **table)
    return path


def header(table: dict[str, np.ndarray], **values: object) -> None:
    said = json.loads(table["header"].tobytes()) | values
    table["header"] = np.frombuffer(json.dumps(said).encode(), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.pop("header"),
        lambda table: table.pop("0.rows"),
        lambda table: table.update({"0.rows": table["0.rows"][:, :3]}),
        lambda table: table.update({"0.rows": table["0.rows"] * np.nan}),
        lambda table: table.update({"0.rows": np.array(["x"])}),
        lambda table: table.update({"0.gram": table["0.gram"] + np.inf}),
        lambda table: table.update({"0.gram": table["0.gram"][0]}),
        lambda table: table.update({"marks": table["marks"][1:]}),
        lambda table: header(table, settings={}),
        lambda table: header(table, settings={"branches": 1, "unfused": True}),
        lambda table: header(table, tensors=5),
        lambda table: table.update(header=np.frombuffer(b"[" * 100000, np.uint8)),
        lambda table: header(table, format="other"),
        lambda table: header(table, version=2),
        lambda table: header(table, tensors=[{"key": "x"}]),
    ],
)
def test_a_damaged_file_is_one_line(model: Path, tmp_path: Path, change: Any) -> None:
    kept(model, VALUES[:40], tmp_path / "a.stats")
    with pytest.raises(DataError, match="is no file of statistics, or it is damaged"):
        read_sums(damaged(tmp_path / "a.stats", change))


def test_what_is_no_file_of_statistics_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("header.npy", "hello")
    np.savez(tmp_path / "objects.npz", header=np.array([{}], object))
    for name in ("text", "zip", "objects.npz"):
        with pytest.raises(DataError, match="is no file of statistics"):
            read_sums(tmp_path / name)
    with pytest.raises(DataError, match="do not exist"):
        read_sums(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot be read"):
        read_sums(tmp_path)


def lost(model: Path, result: onnxprune.Model) -> float:
    """Mean squared distance of the outputs to the original's, on samples of their own."""
    values = np.random.default_rng(9).standard_normal((64, 3, 12, 12)).astype(np.float32)
    given = [onnxprune.graph.session.open_session(one).values(["logits"], {"x": values})[0] for one in (model, result)]
    return float(np.square(given[0] - given[1]).mean())


@pytest.mark.parametrize("patches", [False, True])
def test_a_prune_by_statistics_alone_refits_what_stays(model: Path, tmp_path: Path, patches: bool) -> None:
    kept(model, VALUES, tmp_path / "a.stats", patches=patches)
    settings = {"ratio": 0.5, "align": 1, "stats": tmp_path / "a.stats"}
    found = onnxprune.prune(model, **settings)
    plain = onnxprune.prune(model, compensate="none", **settings)
    assert found.plan.removed == plain.plan.removed
    assert found.plan.refitted and found.compensation is not None
    assert len(found.compensation.layers) == 2
    assert lost(model, found.model) < 0.5 * lost(model, plain.model)
    assert found.report.details["statistics"][0]["samples"] == 160


def test_a_plan_is_applied_with_statistics_of_the_new_weights(model: Path, tmp_path: Path) -> None:
    plan = onnxprune.prune(model, ratio=0.5, align=1, compensate="none").plan
    new = networks.store(networks.convnet(5, width=16), tmp_path / "new.onnx")
    kept(new, VALUES, tmp_path / "new.stats")
    bare = onnxprune.apply(new, plan, same_structure=True)
    found = onnxprune.apply(new, plan, same_structure=True, stats=tmp_path / "new.stats")
    assert found.plan.removed == bare.plan.removed
    assert lost(new, found.model) < 0.5 * lost(new, bare.model)


def test_scores_of_statistics_are_those_of_the_same_data(model: Path, tmp_path: Path) -> None:
    """The fit part of 160 samples is 120; nothing else is known of them."""
    path = tmp_path / "d.npz"
    np.savez(path, x=VALUES)
    found = onnxprune.prune(model, path, ratio=0.5, align=1, compensate="none", gates=Gates(judge_data=path))
    kept(model, VALUES, tmp_path / "a.stats", shard=512)
    known = onnxprune.prune(model, ratio=0.5, align=1, compensate="none", stats=tmp_path / "a.stats")
    assert known.plan.removed == found.plan.removed


def test_judged_samples_that_statistics_know_are_left_out(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=VALUES)
    kept(model, VALUES[:80], tmp_path / "half.stats")
    kept(model, VALUES, tmp_path / "all.stats")
    settings = {"ratio": 0.5, "align": 1, "compensate": "lstsq"}
    told = []
    for name in (None, "half.stats", "all.stats"):
        stats = None if name is None else tmp_path / name
        report = onnxprune.prune(model, tmp_path / "d.npz", stats=stats, **settings).report
        told.append(str(report.details["inputs"]))
    assert "40 samples" in told[0] and "nothing was fitted to" in told[0]
    assert "20 samples" in told[1] and "nothing was fitted to" in told[1]
    assert "40 samples" in told[2] and "which it was fitted to" in told[2]


def test_other_methods_take_statistics_too(model: Path, tmp_path: Path) -> None:
    stats, model = tmp_path / "a.stats", networks.store(networks.convnet(width=96), tmp_path / "wide.onnx")
    kept(model, VALUES, stats, patches=True)
    pairs = [
        (onnxprune.sparsify, {"sparsity": 0.7}),
        (onnxprune.factorize, {"params": 0.5}),
        (onnxprune.quantize, {"mode": "weight-only", "block_size": 16, "bits": 4}),
    ]
    for method, options in pairs:
        with_stats, without = (lost(model, method(model, **options, **more).model) for more in ({"stats": stats}, {}))
        assert with_stats < without, method.__name__


def test_statistics_of_another_model_are_refused(model: Path, tmp_path: Path) -> None:
    kept(networks.store(networks.convnet(1, width=16), tmp_path / "b.onnx"), VALUES[:40], tmp_path / "b.stats")
    with pytest.raises(UsageError, match="are of another model"):
        onnxprune.prune(model, stats=tmp_path / "b.stats")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"compensate": "distil"}, "needs inputs"),
        ({"macs": 0.5, "scope": "sensitivity"}, "statistics only: give data"),
        ({"score": "taylor"}, "give"),
        ({"effort": "thorough"}, "needs inputs"),
    ],
)
def test_what_needs_samples_says_so(model: Path, tmp_path: Path, options: dict[str, Any], why: str) -> None:
    kept(model, VALUES[:40], tmp_path / "a.stats")
    with pytest.raises(UsageError, match=why):
        onnxprune.prune(model, stats=tmp_path / "a.stats", **options)


def test_statistics_are_for_weight_only_mode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stats is for --mode weight-only"):
        onnxprune.QuantizeOptions(mode="static", stats=tmp_path / "a.stats")
