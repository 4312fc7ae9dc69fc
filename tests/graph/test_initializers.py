"""Stored tensors that are added or retyped: valid in every IR version, with inputs that agree."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxprune.graph import initializers
from tests.networks import convnet


def old(ir_version: int = 3) -> onnx.ModelProto:
    """Return the convnet as older exporters write it: every weight is an input as well."""
    proto = convnet(batch=1)
    proto.ir_version = ir_version
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return proto


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_tensor_that_is_added_makes_no_model_invalid(ir_version: int) -> None:
    proto = old(ir_version)
    proto.graph.node.append(helper.make_node("Add", ["logits", "shift"], ["shifted"]))
    proto.graph.output[0].name = "shifted"
    initializers.add(proto, "shift", np.ones(10, np.float32))
    onnx.checker.check_model(proto, full_check=True)
    declared = "shift" in {value.name for value in proto.graph.input}
    assert declared == (ir_version == 3)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_the_input_of_a_tensor_follows_its_new_type_and_shape(ir_version: int) -> None:
    proto = old(ir_version)
    tensor = next(t for t in proto.graph.initializer if t.name == "w3")
    initializers.retype(proto.graph, tensor, np.zeros((4, 2), np.int8))
    kind = next(v for v in proto.graph.input if v.name == "w3").type.tensor_type
    assert kind.elem_type == TensorProto.INT8
    assert [dim.dim_value for dim in kind.shape.dim] == [4, 2]


def test_settling_mends_what_a_library_left_behind_and_nothing_else() -> None:
    proto = old(3)
    initializers.settle(proto)
    assert proto == old(3)
    initializers.add_to(proto.graph, "extra", np.zeros(3, np.float32))
    initializers.settle(proto)
    onnx.checker.check_model(proto, full_check=True)
    newer = convnet()
    initializers.settle(newer)
    assert newer == convnet()


def test_a_body_with_stored_tensors_raises_the_version_and_keeps_the_feeds() -> None:
    proto = old(3)
    body = helper.make_graph([helper.make_node("Add", ["logits", "one"], ["sum"])], "body", [], [])
    body.output.add(name="sum").type.tensor_type.elem_type = TensorProto.FLOAT
    initializers.add_to(body, "one", np.ones(1, np.float32))
    proto.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    proto.graph.node.append(helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body))
    proto.graph.output[0].name = "y"
    initializers.settle(proto)
    assert proto.ir_version == initializers.FREE_SINCE
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert {port.name for port in session.get_inputs()} == {"x", "flag"}
