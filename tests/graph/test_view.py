"""The view finds what a weight is stored as, and its values, whatever hands it on."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph.model import Model
from onnxprune.graph.view import View

W = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def handed_on(*nodes: tuple[str, dict]) -> View:
    """A chain of nodes behind a stored tensor of three axes; the last one is read."""
    names = ["w", *(f"t{number}" for number in range(len(nodes)))]
    chain = [
        helper.make_node(op_type, [names[place]], [names[place + 1]], **attributes)
        for place, (op_type, attributes) in enumerate(nodes)
    ]
    chain.append(helper.make_node("Add", ["x", names[-1]], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph(chain, "g", ends[:1], ends[1:], [numpy_helper.from_array(W, "w")])
    return View(Model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


CHAINS = [
    [],
    [("Identity", {})],
    [("Transpose", {"perm": [2, 0, 1]})],
    [("Transpose", {"perm": [2, 0, 1]}), ("Identity", {}), ("Transpose", {"perm": [0, 2, 1]})],
    [("Transpose", {"perm": [1, 2, 0]}), ("Transpose", {"perm": [1, 2, 0]})],
]


@pytest.mark.parametrize("chain", CHAINS, ids=range(len(CHAINS)))
def test_axes_of_a_weight_that_is_handed_on_are_those_of_numpy(chain: list) -> None:
    view = handed_on(*chain)
    seen = W
    for _, attributes in chain:
        seen = seen.transpose(attributes["perm"]) if attributes else seen
    stored = view.stored(view.nodes[-1].inputs[1])
    assert (stored.parameter.key, stored.dims) == ("w", seen.shape)
    np.testing.assert_array_equal(view.content("w").transpose(stored.order), seen)


@pytest.mark.parametrize(
    "chain", [[("Neg", {})], [("Transpose", {})], [("Identity", {}), ("Cast", {"to": 10})]], ids=str
)
def test_a_weight_that_is_computed_is_not_stored(chain: list) -> None:
    view = handed_on(*chain)
    assert view.stored(view.nodes[-1].inputs[1]) is None
    assert view.stored("x") is None


def test_what_is_followed_can_be_chosen() -> None:
    view = handed_on(("Cast", {"to": 10}))
    assert view.stored("t0", through=("Cast",)).parameter.key == "w"


def test_values_that_are_still_to_be_written_count() -> None:
    view = handed_on()
    view.model.pending["w"] = lambda: W + 1
    np.testing.assert_array_equal(view.content("w"), W + 1)
