"""A plan of last week's weights for this week's: the same network, trained again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.graph.structure import structure_of
from tests import networks

VALUES = np.random.default_rng(3).standard_normal((40, 3, 12, 12)).astype(np.float32)


def test_widths_stay_and_what_stays_is_refitted_to_the_new_weights() -> None:
    old, new = networks.convnet(0), networks.convnet(1)
    plan = onnxprune.prune(old, ratio=0.5, align=1, compensate="none").plan
    found = onnxprune.apply(new, plan, {"x": VALUES}, same_structure=True, compensate="lstsq")
    bare = onnxprune.apply(new, plan, {"x": VALUES}, same_structure=True, compensate="none")
    assert found.plan.removed == plan.removed
    assert found.plan.source_sha256 == onnxprune.load(new).sha256
    shapes = [{t.name: tuple(t.dims) for t in r.model.proto.graph.initializer} for r in (found, bare)]
    assert shapes[0] == shapes[1]
    near = [onnxprune.validate(new, r.model, data={"x": VALUES}).parity["logits"] for r in (found, bare)]
    assert near[0].cosine > near[1].cosine


def test_a_plan_survives_its_file_with_the_structure(tmp_path: Path) -> None:
    plan = onnxprune.prune(networks.convnet(), ratio=0.5, compensate="none").plan
    (tmp_path / "plan.json").write_text(plan.to_json())
    assert plan.structure
    found = onnxprune.apply(networks.convnet(2), tmp_path / "plan.json", same_structure=True)
    assert found.plan.removed == plan.removed


def renamed(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].name = "other"


def padded(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[0] = 2


def widened(proto: onnx.ModelProto) -> None:
    proto.CopyFrom(networks.convnet(width=40))


def activated(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type = "Sigmoid"


def halved(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))


def raised(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 18


@pytest.mark.parametrize("change", [renamed, padded, widened, activated, halved, raised])
def test_another_structure_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    plan = onnxprune.prune(networks.convnet(), ratio=0.5, compensate="none").plan
    other = networks.convnet(1)
    change(other)
    assert structure_of(other) != plan.structure
    with pytest.raises(UsageError, match="the plan was made for another structure"):
        onnxprune.apply(onnxprune.Model(other), plan, same_structure=True)


def test_numbers_that_are_no_weights_belong_to_the_structure() -> None:
    def net(rows: int, weight: float, constant: bool) -> onnx.ModelProto:
        target = numpy_helper.from_array(np.array([rows, -1], np.int64), "target")
        stored = [numpy_helper.from_array(np.full((4, 4), weight, np.float32), "w")]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Reshape", ["y", "target"], ["z"])]
        if constant:
            nodes.insert(0, helper.make_node("Constant", [], ["target"], value=target))
        ports = [helper.make_tensor_value_info(name, networks.FLOAT, None) for name in "xz"]
        return networks.model(nodes, ports[:1], ports[1:], stored if constant else [*stored, target])

    for constant in (False, True):
        same = structure_of(net(2, 1.0, constant))
        assert structure_of(net(2, 5.0, constant)) == same
        assert structure_of(net(4, 1.0, constant)) != same


def test_what_is_said_about_a_model_is_no_structure() -> None:
    one, two = networks.convnet(), networks.convnet(1)
    two.producer_name, two.doc_string = "exporter of this week", "epoch 90"
    two.graph.node[0].doc_string = "layer"
    two.metadata_props.add(key="accuracy", value="0.93")
    assert structure_of(one) == structure_of(two)


def test_a_plan_without_structure_says_so() -> None:
    plan = replace(onnxprune.prune(networks.convnet(), ratio=0.5, compensate="none").plan, structure="")
    with pytest.raises(UsageError, match="does not say which structure"):
        onnxprune.apply(networks.convnet(1), plan, same_structure=True)
    with pytest.raises(UsageError, match="say same_structure where only the weights differ"):
        onnxprune.apply(networks.convnet(1), plan)
