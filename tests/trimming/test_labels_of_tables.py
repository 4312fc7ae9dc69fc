"""Operators that onnxruntime lacks or that give no tensors: labels in attributes, suppression by a plug-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import NothingToPruneError
from onnxprune.methods.trim import trim
from onnxprune.methods.trim_options import TrimOptions
from tests.micro.build import Net
from tests.oracle import random_inputs, session
from tests.trimming.heads import CLASSES, KEPT, features, linear, yolo8

LABELS: dict[str, dict[str, list[Any]]] = {
    "numbers": {"classlabels_int64s": list(range(10, 10 + CLASSES))},
    "words": {"classlabels_strings": [f"kind {number}" for number in range(CLASSES)]},
}


def with_tables(labels: dict[str, list[Any]]) -> tuple[onnx.ModelProto, str]:
    net = Net()
    scores = net.Sigmoid(linear(net, features(net)))
    net.output(scores)
    model = net.model()
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    model.graph.node.append(helper.make_node("ZipMap", [scores], ["tables"], domain="ai.onnx.ml", **labels))
    output = model.graph.output.add(name="tables").type.sequence_type.elem_type.map_type
    output.key_type = TensorProto.INT64 if "classlabels_int64s" in labels else TensorProto.STRING
    output.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return model, scores


@pytest.mark.parametrize("kind", LABELS)
def test_tables_keep_the_labels_of_the_positions_that_stay(kind: str) -> None:
    model, scores = with_tables(LABELS[kind])
    result = trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7"})).model.proto
    feeds = random_inputs(model, np.random.default_rng(0), 2)
    before, after = (session(proto).run(["tables"], feeds)[0] for proto in (model, result))
    labels = [next(iter(LABELS[kind].values()))[place] for place in KEPT]
    assert [list(table) for table in after] == [labels, labels]
    for old, new in zip(before, after, strict=True):
        assert [old[label] for label in labels] == pytest.approx(list(new.values()), rel=1e-6)


def test_labels_that_are_not_one_for_every_position_hold_them() -> None:
    model, scores = with_tables({"classlabels_int64s": [1, 2, 3]})
    with pytest.raises(NothingToPruneError, match="ZipMap"):
        trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7"}))


def plugin(domain: str, **more: Any) -> tuple[onnx.ModelProto, str]:
    net = Net()
    boxes, scores = yolo8(net)
    turned, rows = net.transpose(boxes, 0, 2, 1), net.transpose(scores, 0, 2, 1)
    net.output(rows)
    model = net.model()
    del model.graph.output[:]
    names = ["count", "boxes", "scores", "kinds"]
    model.graph.node.append(helper.make_node("EfficientNMS_TRT", [turned, rows], names, domain=domain, **more))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    shapes = [["n", 1], ["n", 100, 4], ["n", 100], ["n", 100]]
    for name, shape in zip(names, shapes, strict=True):
        kind = TensorProto.INT32 if name in ("count", "kinds") else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    return model, scores


@pytest.mark.parametrize("domain", ["TRT", ""])
def test_a_plug_in_that_suppresses_goes_on_giving_old_numbers(domain: str) -> None:
    model, scores = plugin(domain, background_class=-1, max_output_boxes=100)
    result = trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7"})).model.proto
    (last,) = [node for node in result.graph.node if "kinds" in node.output]
    table = next(tensor for tensor in result.graph.initializer if tensor.name == last.input[0])
    assert last.op_type == "Gather" and onnx.numpy_helper.to_array(table).tolist() == list(KEPT)
    assert table.data_type == TensorProto.INT32
    (made,) = [node for node in result.graph.node if node.op_type == "EfficientNMS_TRT"]
    assert list(made.output)[:3] == ["count", "boxes", "scores"] and last.input[1] == made.output[3]


def test_a_background_class_of_a_plug_in_holds_the_classes() -> None:
    model, scores = plugin("TRT", background_class=0)
    with pytest.raises(NothingToPruneError, match="EfficientNMS_TRT"):
        trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7"}))


def test_an_output_that_shares_the_classes_is_to_be_kept_as_well() -> None:
    net = Net()
    scores = net.Sigmoid(linear(net, features(net)))
    hits = net.Cast(net.Greater(scores, net.number(0.5)), to=TensorProto.FLOAT)
    net.output(scores, hits)
    model = net.model()
    with pytest.raises(NothingToPruneError, match=f"'{hits}' is an output of the model; keep the same positions"):
        trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7"}))
    both = trim(model, TrimOptions(keep={f"{scores}:1": "1,4,7", f"{hits}:1": "1,4,7"})).model.proto
    feeds = random_inputs(model, np.random.default_rng(0), 2)
    for old, new in zip(session(model).run(None, feeds), session(both).run(None, feeds), strict=True):
        assert np.allclose(old[:, list(KEPT)], new, rtol=1e-6)
