"""Random inputs have the type, range and sizes that a model needs to run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import DataError
from onnxprune.evidence.inputs import RandomInputs, random_inputs
from onnxprune.graph.model import load
from onnxprune.graph.session import open_session
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from tests import networks


def draw(
    proto: onnx.ModelProto, input_shapes: dict[str, tuple[int, ...]] | None = None, **options: int
) -> RandomInputs:
    view = View(load(proto))
    session = open_session(proto.SerializeToString(), threads=1)
    return random_inputs(view, trace(view, input_shapes), session, **options)


def embedding(offset: int) -> onnx.ModelProto:
    """Tokens, and positions that are moved by an offset before they index their table."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["ids64"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "ids64"], ["a"]),
        helper.make_node("Add", ["positions", "offset"], ["moved"]),
        helper.make_node("Gather", ["places", "moved"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    return networks.model(
        nodes,
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", "sequence"]),
            helper.make_tensor_value_info("positions", TensorProto.INT64, ["batch", "sequence"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", 4])],
        [
            *networks.weights(words=(50, 4), places=(9, 4)),
            helper.make_tensor("offset", TensorProto.INT64, [], [offset]),
        ],
    )


def test_integers_that_index_a_table_stay_inside_it_and_use_its_width() -> None:
    source = draw(embedding(offset=2))
    feeds = [source.sample(number) for number in range(20)]
    ids = np.concatenate([feed["ids"].ravel() for feed in feeds])
    places = np.concatenate([feed["positions"].ravel() for feed in feeds])
    assert ids.dtype == np.int32 and ids.min() >= 0 and 40 < ids.max() < 50
    assert places.min() >= 0 and places.max() == 6


def test_a_mask_keeps_most_positions() -> None:
    node = helper.make_node("Cast", ["attention_mask"], ["y"], to=TensorProto.FLOAT)
    proto = networks.model(
        [node],
        [helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
    )
    mask = draw(proto).sample(0)["attention_mask"]
    assert set(mask.ravel().tolist()) == {0, 1} and mask.mean() > 0.5


def test_an_integer_that_is_compared_with_a_constant_gets_that_constant() -> None:
    nodes = [helper.make_node("Equal", ["rate", "wanted"], ["same"]), helper.make_node("Not", ["same"], ["y"])]
    proto = networks.model(
        nodes,
        [helper.make_tensor_value_info("rate", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
        [helper.make_tensor("wanted", TensorProto.INT64, [], [16000])],
    )
    assert draw(proto).sample(0)["rate"] == 16000


def test_pixels_of_eight_bits_use_their_whole_range() -> None:
    node = helper.make_node("Cast", ["image"], ["y"], to=TensorProto.FLOAT)
    proto = networks.model(
        [node],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 64, 3])],
    )
    image = draw(proto).sample(0)["image"]
    assert image.min() == 0 and image.max() == 255


def test_a_dynamic_batch_gives_two_sizes_and_a_fixed_one_gives_one() -> None:
    dynamic, fixed = draw(networks.convnet()), draw(networks.convnet(batch=3))
    assert [table["x"] for table in dynamic.tables] == [(1, 3, 12, 12), (2, 3, 12, 12)]
    assert [table["x"] for table in fixed.tables] == [(3, 3, 12, 12)]


def test_given_shapes_are_kept() -> None:
    assert draw(networks.convnet(), {"x": (4, 3, 12, 12)}).tables == ({"x": (4, 3, 12, 12)},)


def test_sizes_that_the_declared_ones_hide_are_found_by_trying() -> None:
    """The image must have a side of 32, which nothing but the weights of the head says."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    proto = networks.model(
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        networks.weights(w=(3 * 32 * 32, 4)),
    )
    assert draw(proto).tables[0] == {"x": (1, 3, 32, 32)}


def test_strings_are_refused_with_what_to_do() -> None:
    node = helper.make_node("Identity", ["words"], ["y"])
    proto = networks.model(
        [node],
        [helper.make_tensor_value_info("words", TensorProto.STRING, [2])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [2])],
    )
    with pytest.raises(DataError, match=r"'words'.*--data"):
        draw(proto)


def test_the_same_number_gives_the_same_sample_and_another_one_does_not() -> None:
    source = draw(networks.convnet())
    assert np.array_equal(source.sample(1)["x"], source.sample(1)["x"])
    assert not np.array_equal(source.sample(1)["x"], source.sample(2)["x"])
