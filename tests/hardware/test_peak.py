"""The counted peak of activations against what onnxruntime allocates, and as a target of a prune."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import onnxprune
from models import zoo
from onnxprune.cli.group import cli
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.hardware.arena import Buffer, alive, room
from onnxprune.hardware.energy import joules
from onnxprune.hardware.peak import activations
from onnxprune.methods.prune_options import PruneOptions, read_amount
from tests.hardware.arena_of import arena_bytes
from tests.networks import convnet, model, store, weights

FLOAT = TensorProto.FLOAT


def branches() -> onnx.ModelProto:
    """Return residual branches, a Concat, arithmetic of two operands, views, and a Softmax over what was reshaped."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c1"], "c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "r1"),
        helper.make_node("Conv", ["r1", "b"], ["c2"], "c2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s1"], "s1"),
        helper.make_node("Sigmoid", ["s1"], ["g1"], "g1"),
        helper.make_node("Mul", ["s1", "g1"], ["m1"], "m1"),
        helper.make_node("Concat", ["m1", "r1"], ["k1"], "k1", axis=1),
        helper.make_node("MaxPool", ["k1"], ["p1"], "p1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "c"], ["c3"], "c3"),
        helper.make_node("Flatten", ["c3"], ["f1"], "f1"),
        helper.make_node("Tanh", ["f1"], ["t1"], "t1"),
        helper.make_node("Gemm", ["t1", "d"], ["h1"], "h1"),
        helper.make_node("Softmax", ["h1"], ["q1"], "q1", axis=1),
        helper.make_node("Gemm", ["q1", "e"], ["y"], "y"),
    ]
    ends = (
        [helper.make_tensor_value_info("x", FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 5])],
    )
    shapes = {"a": (24, 3, 3, 3), "b": (24, 24, 3, 3), "c": (8, 48, 1, 1), "d": (512, 40), "e": (40, 5)}
    return model(nodes, *ends, weights(**shapes))


@pytest.mark.parametrize("network", ["convnet", "branches", "LSTM", "GNN", "GPT2", "WaveNet", "ESPCN"])
def test_the_counted_peak_is_what_onnxruntime_allocates(network, tmp_path: Path):
    proto = {"convnet": convnet, "branches": branches}.get(network, lambda: zoo.build(network))()
    file = store(proto, tmp_path / "m.onnx")
    sizes = {
        value.name: tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim) for value in proto.graph.input
    }
    assert activations(onnxprune.load(file), sizes).peak == pytest.approx(arena_bytes(file), rel=0.01)


def test_buffers_that_are_not_there_together_share_room():
    buffers = [Buffer(("a",), 0, 1), Buffer(("b",), 1, 2), Buffer(("c",), 2, 3), Buffer(("d",), 3, 3)]
    assert room(buffers, [1000, 500, 900, 100]) == 1024 + 512
    assert list(alive(buffers, [1000, 500, 900, 100])) == [1000, 1500, 1400, 1000]
    assert room([], []) == 0


def test_batch_and_sizes_are_those_asked_for():
    one = onnxprune.load(convnet())
    assert activations(one, {"x": (4, 3, 12, 12)}).peak > 3.9 * activations(one).peak
    assert activations(one).highest == ("r1", "r2")


@pytest.mark.parametrize(
    ("text", "amount"), [("0.5", 0.5), (0.25, 0.25), ("1", 1.0), ("2KB", 2048), ("1.5MB", 3 << 19), ("900B", 900)]
)
def test_an_amount_is_a_share_or_bytes(text, amount):
    assert read_amount(text) == amount


@pytest.mark.parametrize("text", ["", "half", "-1", "0", "-3KB", "nan", "inf", "1.5", "0.5B"])
def test_other_amounts_are_refused(text):
    with pytest.raises(UsageError, match="give a share"):
        PruneOptions(peak_memory=text)


@pytest.mark.parametrize("wanted", [0.75, 0.5, "24KB"])
def test_a_target_for_the_peak_is_kept_as_onnxruntime_allocates(wanted, tmp_path: Path):
    source = store(branches(), tmp_path / "m.onnx")
    result = onnxprune.prune(source, peak_memory=wanted, compensate="none", align=1)
    before, after = (arena_bytes(store(m, tmp_path / n)) for m, n in ((branches(), "a"), (result.model.proto, "b")))
    goal = before * wanted if isinstance(wanted, float) else 24 << 10
    assert 0.85 * goal <= after <= goal


def test_groups_that_the_peak_does_not_need_stay_whole(tmp_path: Path):
    result = onnxprune.prune(branches(), peak_memory=0.6, compensate="none", align=1)
    late = [name for name in result.keep if "c3" in name or "h1" in name]
    assert result.keep and not late


def test_more_than_can_be_had_is_refused_and_a_goal_that_holds_already_removes_nothing():
    with pytest.raises(NothingToPruneError, match="peak-memory"):
        onnxprune.prune(convnet(), peak_memory="600B", compensate="none")
    assert not onnxprune.prune(convnet(), peak_memory="100MB", compensate="none").removes


def test_what_it_does_not_go_with_is_refused():
    with pytest.raises(UsageError, match="one target"):
        PruneOptions(peak_memory=0.5, ratio=0.3)
    with pytest.raises(UsageError, match="widths alone"):
        PruneOptions(peak_memory=0.5, drop=("x",))


def test_reports_tell_peak_and_energy(tmp_path: Path):
    file, output = store(convnet(), tmp_path / "m.onnx"), tmp_path / "o.onnx"
    shown = CliRunner().invoke(cli, ["inspect", str(file)])
    assert "of activations at the peak" in shown.output and "an estimate after Horowitz" in shown.output
    done = CliRunner().invoke(
        cli, ["prune", str(file), "--peak-memory", "0.6", "--compensate", "none", "-o", str(output)]
    )
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("activations"))
    assert float(line.split()[-2]) <= 60


def test_energy_falls_with_work_and_with_bits():
    wide, narrow = (onnxprune.load(convnet(width=width)) for width in (64, 32))
    spent = [joules(view, trace(view, {"x": (1, 3, 12, 12)})) for view in (View(wide), View(narrow))]
    feeds = {"x": np.random.default_rng(0).normal(size=(16, 3, 12, 12)).astype(np.float32)}
    small = View(onnxprune.quantize(wide, feeds, mode="static", guard=False, measure=False).model)
    fewer = joules(small, trace(small, {"x": (1, 3, 12, 12)}))
    assert spent[1] < spent[0] and fewer < spent[0]


@pytest.mark.parametrize("network", ["convnet", "branches", "GPT2"])
def test_weights_beside_the_model_change_no_peak(network, tmp_path: Path):
    proto = {"convnet": convnet, "branches": branches}.get(network, lambda: zoo.build(network))()
    inside = onnxprune.load(store(proto, tmp_path / "inside.onnx"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    outside = activations(onnxprune.load(tmp_path / "m.onnx"))
    assert (outside.buffers, outside.sizes) == (activations(inside).buffers, activations(inside).sizes)


def test_a_model_with_weights_beside_it_meets_a_peak(tmp_path: Path):
    onnx.save(branches(), tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    arguments = ["prune", str(tmp_path / "m.onnx"), "--peak-memory", "0.7", "--compensate", "none", "-q"]
    result = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "small.onnx")])
    assert result.exit_code == 0, result.output
    before = activations(onnxprune.load(tmp_path / "m.onnx"))
    assert activations(onnxprune.load(tmp_path / "small.onnx")).peak <= 0.7 * before.peak


@pytest.mark.parametrize("network", [convnet, branches])
def test_a_model_in_float16_meets_a_peak_although_it_is_computed_in_float32(network, tmp_path: Path):
    half = onnxprune.quantize(network(), mode="fp16", keep_io_types=False).model
    before = activations(half).peak
    small = onnxprune.prune(half, peak_memory=0.75, compensate="none").model
    assert 0 < activations(small).peak <= 0.75 * before


def test_bytes_that_cannot_be_reached_are_told_in_bytes():
    with pytest.raises(NothingToPruneError, match=r"300 of [0-9]+ bytes were asked for"):
        onnxprune.prune(convnet(), peak_memory="300B", compensate="none")
