"""What of a layer's work is padding on a target, by hand; what runs elsewhere, and what waits for memory."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import onnxprune
from onnxprune.cli.group import cli
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.hardware.fit import TargetFit, fit
from onnxprune.hardware.target import target_named
from tests.networks import model, store, weights

FLOAT = TensorProto.FLOAT


def one(operator: str, shape: tuple[int, ...], data: list[int], **attributes) -> View:
    """Return a graph of one layer."""
    node = helper.make_node(operator, ["x", "w"], ["y"], "layer", **attributes)
    ends = helper.make_tensor_value_info("x", FLOAT, data), helper.make_tensor_value_info("y", FLOAT, None)
    return View(onnxprune.load(model([node], ends[:1], ends[1:], weights(w=shape))))


def fits(view: View, target: str, precision: str = "float32") -> TargetFit:
    return fit(view, trace(view, {}), target_named(target), precision)


@pytest.mark.parametrize(
    ("operator", "shape", "data", "attributes", "target", "runs", "padding"),
    [
        ("Conv", (40, 32, 3, 3), [1, 32, 8, 8], {}, "cpu-avx512", (32, 48), 1 - 40 / 48),
        ("Conv", (40, 3, 3, 3), [1, 3, 8, 8], {}, "cpu-avx512", (3, 48), 1 - 40 / 48),
        ("Conv", (40, 24, 1, 1), [1, 24, 8, 8], {}, "qualcomm-htp", (32, 64), 1 - 40 * 24 / 64 / 32),
        ("Conv", (24, 1, 3, 3), [1, 24, 8, 8], {"group": 24}, "qualcomm-htp", (1, 32), 0.25),
        ("Conv", (64, 12, 3, 3), [1, 24, 8, 8], {"group": 2}, "ascend", (16, 32), 0.25),
        ("ConvTranspose", (24, 20, 2, 2), [1, 24, 8, 8], {}, "ascend", (32, 32), 1 - 24 * 20 / 1024),
        ("MatMul", (30, 20), [4, 30], {}, "cpu-avx512", (30, 32), 1 - 20 / 32),
        ("Gemm", (20, 30), [4, 30], {"transB": 1}, "cpu-avx512", (30, 32), 1 - 20 / 32),
        ("Conv", (64, 32, 3, 3), [1, 32, 8, 8], {}, "qualcomm-htp", (32, 64), 0.0),
    ],
)
def test_padding_by_hand(operator, shape, data, attributes, target, runs, padding):
    precision = target_named(target).precision_for(None, "float32")
    (layer,) = fits(one(operator, shape, data, **attributes), target, precision).layers
    assert (layer.run_reads, layer.run_writes) == runs
    assert layer.padding == pytest.approx(padding)
    assert layer.work * (1 - layer.padding) == pytest.approx(layer.macs)


def test_hidden_units_of_a_recurrent_layer_are_counted_once_not_for_each_gate():
    nodes = [helper.make_node("GRU", ["x", "w", "r"], ["y"], "layer", hidden_size=40)]
    ends = [helper.make_tensor_value_info("x", FLOAT, [5, 1, 32])], [helper.make_tensor_value_info("y", FLOAT, None)]
    view = View(onnxprune.load(model(nodes, *ends, weights(w=(1, 120, 32), r=(1, 120, 40)))))
    (layer,) = fits(view, "qualcomm-htp", "int8").layers
    assert (layer.writes, layer.run_writes, layer.good) == (40, 64, (32, 64))


def test_a_finding_says_what_better_widths_there_are():
    (layer,) = fits(one("Conv", (40, 32, 3, 3), [1, 32, 8, 8]), "qualcomm-htp", "int8").layers
    assert str(layer) == "layer: 40 channels run as 64 (38% of its work is padding); next good widths 32, 64"


@pytest.mark.parametrize(
    ("view", "target", "why"),
    [
        (one("Conv", (10, 4, 3, 3), [1, 4, 8, 8]), "ti-tinpu", "10 channels are no multiple of 4"),
        (one("Conv", (8, 4, 9, 9), [1, 4, 12, 12]), "ti-tinpu", "a kernel of 9x9, 7 is the most"),
        (one("Conv", (8, 4, 3, 3), [1, 8, 8, 8], group=2), "ti-tinpu", "a convolution in 2 groups"),
        (one("Conv", (16, 4, 3, 3, 3), [1, 4, 6, 6, 6]), "axis-artpec9", "tensors of 5 axes, 4 are the most"),
    ],
)
def test_what_a_target_does_not_run_is_named_with_the_reason(view, target, why):
    assert fits(view, target, "int8").elsewhere == {"layer": f"Conv: {why}"}


def test_what_it_runs_is_not_named():
    view = one("Conv", (8, 1, 7, 7), [1, 8, 8, 8], group=8)
    assert fits(view, "ti-tinpu", "int8").elsewhere == {}


def test_only_layers_that_move_more_than_a_cache_holds_wait_for_memory():
    large, small = one("MatMul", (2048, 2048), [1, 2048]), one("MatMul", (64, 64), [1, 64])
    busy = one("MatMul", (2048, 2048), [512, 2048])
    assert [fits(view, "cpu-avx512").layers[0].waits for view in (large, small, busy)] == [True, False, False]


def test_inspect_is_a_linter(tmp_path: Path):
    view = one("Conv", (40, 32, 3, 3), [1, 32, 8, 8])
    file = store(view.model.proto, tmp_path / "m.onnx")
    done = CliRunner().invoke(cli, ["inspect", str(file), "--target", "qualcomm-htp"])
    assert done.exit_code == 0, done.output
    assert "38% of the multiply-adds are padding, in 1 of 1 layers." in done.output
    assert "40 channels run as 64" in done.output
    refused = CliRunner().invoke(cli, ["inspect", str(file), "--target", "qualcomm"])
    assert refused.exit_code == 2 and "did you mean qualcomm-htp?" in refused.output


def test_padding_of_a_model_weighs_layers_by_their_work():
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "wide"),
        helper.make_node("MatMul", ["h", "b"], ["y"], "narrow"),
    ]
    ends = [helper.make_tensor_value_info("x", FLOAT, [4, 32])], [helper.make_tensor_value_info("y", FLOAT, [4, 10])]
    view = View(onnxprune.load(model(nodes, *ends, weights(a=(32, 64), b=(64, 10)))))
    done = np.array([32 * 64, 64 * 10]), np.array([32 * 64, 64 * 32])
    assert fits(view, "qualcomm-htp", "int8").padding == pytest.approx(1 - done[0].sum() / done[1].sum())
