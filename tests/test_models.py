"""The networks of `models/` build, run, and score what their README says."""

import onnx
import onnxruntime
import pytest

from models import zoo
from models.eval import evaluate


def test_the_zoo_has_36_graphs() -> None:
    assert len(zoo.names()) == 36
    assert len(zoo.trained()) == 11


@pytest.mark.parametrize("name", ["resnet18", "LSTM", "mobilevit_xxs"])
def test_a_graph_builds_the_same_twice_and_has_no_recipes_left(name: str) -> None:
    proto = zoo.build(name)
    assert proto == zoo.build(name)
    assert not [t.name for _, t in zoo._tensors(proto.graph) if t.doc_string.startswith('{"normal"')]
    assert all(t.raw_data or t.name for _, t in zoo._tensors(proto.graph))


def test_two_tensors_of_one_graph_get_different_weights() -> None:
    weights = [t.raw_data for t in zoo.build("UNet").graph.initializer if list(t.dims) == [64, 64, 3, 3]]
    assert len(set(weights)) == len(weights) > 1


def test_inert_matrices_are_spread_unless_asked_for() -> None:
    spread = next(t for t in zoo.build("mixer_s32_224").graph.initializer if t.name == "head.weight")
    assert onnx.numpy_helper.to_array(spread).std() > 0.01
    plain = next(t for t in zoo.build("mixer_s32_224", inert=True).graph.initializer if t.name == "head.weight")
    assert not onnx.numpy_helper.to_array(plain).any()


@pytest.mark.parametrize(
    ("network", "expected"),
    [("fm_resnet20/model", 0.9131), ("fm_resnet20/model_bn", 0.9131), ("fm_rnn/model", 0.8642)],
)
def test_accuracy_on_the_slice_is_near_that_on_all_test_images(network: str, expected: float) -> None:
    # 1000 of 10,000 images: three standard errors of a share near 0.9
    assert evaluate(zoo.FOLDER / "trained" / f"{network}.onnx", images=1000) == pytest.approx(expected, abs=0.033)


def test_every_trained_network_takes_its_calibration_data() -> None:
    import numpy as np

    for path in zoo.trained():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        with np.load(zoo.calibration(path)) as data:
            each = "_mode" in data
            feeds = {i.name: data[i.name][0] if each else data[i.name][:2] for i in session.get_inputs()}
        assert all(np.isfinite(output).all() for output in session.run(None, feeds))
