"""Nodes of one name are told apart in plans, and plans of earlier releases still apply."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import onnxprune
from onnxprune.channels.analyse import Channels, analyse
from onnxprune.channels.plan import Plan
from onnxprune.channels.space import MAX_IDS, Space
from onnxprune.errors import ModelError
from tests import networks


def network(*names: str) -> onnx.ModelProto:
    """Two branches of different widths to cut, which add one shared bias; their nodes get the names."""
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 8] x) => (float[n, 4] y) {
            a = MatMul(x, w1)
            b = Add(a, bias)
            c = MatMul(b, w2)
            d = MatMul(x, w3)
            e = Add(d, bias)
            f = MatMul(e, w4)
            y = Add(c, f)
        }"""
    )
    shapes = {"w1": (8, 16), "w2": (16, 4), "w3": (8, 16), "w4": (16, 4)}
    proto.graph.initializer.extend(networks.weights(**shapes))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.float32), "bias"))
    for node, name in zip(proto.graph.node, names, strict=True):
        node.name = name
    return proto


def halves(channels: Channels) -> dict[str, np.ndarray]:
    """Cut the first half of one group and the second half of the other."""
    one, two = (group.name for group in channels.groups)
    first = np.arange(16) < 8
    return {one: first, two: ~first}


@pytest.mark.parametrize("names", [("m", "n", "m", "m", "n", "m", "n"), ("",) * 7, ("1", "e", "3", "4", "", "6", "7")])
def test_every_use_has_a_name_of_its_own_and_the_plan_gives_the_masks_back(names: tuple[str, ...]) -> None:
    channels = analyse(onnxprune.load(network(*names)))
    keep = halves(channels)
    plan = Plan.from_json(channels.plan(keep).to_json())
    assert len(plan.unshared["bias"]) == 2
    again = channels.keep(plan)
    assert all(np.array_equal(again[name], keep[name]) for name in keep)


def test_a_plan_with_names_of_nodes_that_are_tensors_elsewhere_still_applies() -> None:
    channels = analyse(onnxprune.load(network("1", "e", "3", "4", "5", "6", "7")))
    document = json.loads(channels.plan(halves(channels)).to_json())
    uses = document["unshared"]["bias"]
    document["unshared"]["bias"] = {"e:1": uses["b:1"], "5:1": uses["5:1"]}
    keep = channels.keep(Plan.from_json(json.dumps(document)))
    assert all(np.array_equal(keep[name], mask) for name, mask in halves(channels).items())


def test_views_of_large_arrays_count_once_with_all_that_they_hold() -> None:
    space, large = Space(), np.arange(MAX_IDS // 2 + 1)
    space.hold([large[:3], large[5:9]])
    assert space.held == large.size
    with pytest.raises(ModelError, match="positions to follow"):
        space.hold([np.arange(MAX_IDS // 2 + 1)[::2]])
