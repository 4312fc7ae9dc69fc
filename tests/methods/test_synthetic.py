"""Made-up inputs: of the right kind, the same every time, better than no refit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from models import zoo
from models.eval import evaluate
from onnxprune.channels.analyse import analyse
from onnxprune.evidence.noise import Image, image_of, pink_images
from onnxprune.graph.trace import trace
from onnxprune.methods import synthetic as room
from onnxprune.methods.runtime import Runtime
from onnxprune.methods.synthetic import synthetic
from tests import plain
from tests.networks import convnet


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", "off")


def made_up(proto, **options):
    return synthetic(analyse(onnxprune.load(proto)), {}, options.pop("seed", 0), Runtime(1), **options)


def test_images_have_amplitudes_that_fall_as_one_over_f():
    images = pink_images((64, 3, 32, 32), Image(1, False), np.random.default_rng(0))
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=(0, 1))[0]
    slope = np.polyfit(np.log(np.arange(1, 12)), np.log(power[1:12]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.3)  # of powers, over 192 images
    colours = images - images.mean(axis=(2, 3), keepdims=True)
    assert np.corrcoef(colours[:, 0].ravel(), colours[:, 1].ravel())[0, 1] > 0.6


@pytest.mark.parametrize("axis", [1, 3])
def test_pixels_of_bytes_stay_between_0_and_255_on_either_axis(axis):
    shape = (2, 3, 16, 24) if axis == 1 else (2, 16, 24, 3)
    images = pink_images(shape, Image(axis, True), np.random.default_rng(0))
    assert images.shape == shape and images.min() >= 0 and 200 < images.max() <= 255


@pytest.mark.parametrize(
    ("shape", "operator", "expected"),
    [
        ((1, 3, 16, 16), ("Div", 255.0), Image(1, True)),
        ((1, 3, 16, 16), ("Mul", 1 / 255), Image(1, True)),
        ((1, 3, 16, 16), ("Sub", 127.5), Image(1, True)),
        ((1, 3, 16, 16), ("Div", 0.225), Image(1, False)),
        ((1, 16, 16, 3), ("Mul", 2.0), Image(3, False)),
        ((1, 8, 16, 16), ("Mul", 2.0), None),
        ((1, 3, 4, 16), ("Mul", 2.0), None),
        ((3, 16, 16), ("Mul", 2.0), None),
    ],
)
def test_what_looks_like_an_image_is_recognised_with_its_range(shape, operator, expected):
    name, constant = operator
    value = onnx.numpy_helper.from_array(np.float32(constant), "c")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    nodes = [helper.make_node("Identity", ["x"], ["i"]), helper.make_node(name, ["i", "c"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [value])
    view = analyse(onnxprune.load(helper.make_model(graph, ir_version=8))).view
    assert image_of("x", np.dtype("float32"), shape, view, trace(view, {})) == expected


def test_inputs_are_the_same_every_time_and_other_for_another_seed():
    one, two, other = made_up(convnet()), made_up(convnet()), made_up(convnet(), seed=1)
    assert one.synthetic and one.samples == room.SAMPLES
    assert one.sha256 == two.sha256 != other.sha256


def test_large_networks_get_fewer_samples(monkeypatch):
    monkeypatch.setattr(room, "MOST_MACS", 0)
    assert made_up(convnet()).samples == room.FEWEST


def test_a_fixed_batch_is_filled():
    data = made_up(convnet(batch=5), samples=20)
    assert data.samples == 20 and all(feed["x"].shape[0] == 5 for feed in data)


def test_tokens_stay_within_the_table_and_masks_are_zeros_and_ones():
    data = made_up(zoo.build("BERT"), samples=16)
    feed = next(iter(data))
    integers = {name: array for name, array in feed.items() if array.dtype.kind == "i"}
    assert integers
    for name, array in integers.items():
        assert array.min() >= 0 and array.max() < (2 if "mask" in name else 30522)


def test_a_refit_on_them_is_better_than_none():
    source = next(path for path in zoo.trained() if str(path).endswith("fm_rnn/model.onnx"))
    bare, refitted = (
        plain.prune(source, ratio=0.5, align=1, compensate=mode).model.proto.SerializeToString()
        for mode in ("none", "lstsq")
    )
    assert evaluate(refitted, 500) > evaluate(bare, 500) + 0.1


def test_from_python_nothing_is_made_up_unless_a_refit_is_asked_for():
    assert plain.prune(convnet(), ratio=0.5).compensation is None
    result = plain.prune(convnet(), ratio=0.5, compensate="lstsq")
    assert result.compensation is not None and result.samples.synthetic
    assert any("made-up inputs" in warning for warning in result.warnings)


def test_a_large_model_is_left_without_a_refit_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr("onnxprune.methods.prune.LARGEST_BYTES", 1000)
    prune = onnxprune.methods.prune.prune
    result = prune(convnet(), onnxprune.PruneOptions(ratio=0.5), synthetic=True)
    assert result.compensation is None and any("the model is large" in warning for warning in result.warnings)
