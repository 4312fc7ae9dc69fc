"""Weights beside a model, and those still to be made, come inside under their own names."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from models import zoo
from onnxprune.channels.analyse import analyse
from onnxprune.channels.rewrite import rewrite
from onnxprune.graph.embedded import embedded
from onnxprune.graph.model import Model
from tests.networks import convnet, model, weights


def tower() -> onnx.ModelProto:
    """Return layers whose weights all have one shape: mixed up, they would still run."""
    nodes = []
    for number in range(8):
        nodes.append(helper.make_node("MatMul", [f"r{number}", f"w{number}"], [f"m{number}"], f"m{number}"))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"r{number + 1}"], f"a{number}"))
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32])] for name in ("r0", "r8")]
    return model(nodes, *ends, weights(**{f"w{number}": (32, 32) for number in range(8)}))


@pytest.mark.parametrize("network", ["tower", "convnet", "GPT2"])
def test_pruned_weights_beside_the_model_come_inside_as_they_are(network: str, tmp_path: Path) -> None:
    proto = {"convnet": convnet, "tower": tower}.get(network, lambda: zoo.build(network))()
    inside = onnxprune.load(proto.SerializeToString())
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    found, wanted = (
        embedded(_cut(source)).graph.initializer for source in (onnxprune.load(tmp_path / "m.onnx"), inside)
    )
    assert [tensor.name for tensor in found] == [tensor.name for tensor in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other), one.name)


def _cut(source: Model) -> Model:
    channels = analyse(source)
    keep = {group.name: np.arange(group.size) % 3 > 0 for group in channels.groups if group.size > 8}
    assert keep
    return rewrite(channels, keep)
