"""What a quantizer adds is made small: values, the source's names and onnxruntime's fusions stay."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxprune.errors import UsageError
from onnxprune.evidence.oracle import masked_model
from onnxprune.graph.model import load
from onnxprune.methods.prune import prune
from onnxprune.methods.prune_options import PruneOptions
from onnxprune.methods.quantize import quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks

ROOT = Path(__file__).parents[2]
TRAINED = ROOT / "models" / "trained"
IMAGES = [{"input": np.random.default_rng(0).standard_normal((4, 1, 28, 28)).astype(np.float32)}]


def kernels(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """Return the operators that onnxruntime runs, after its fusions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.fixture(scope="module", params=["fm_resnet20", "fm_mbv2"])
def pair(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    source = load(TRAINED / request.param / "model.onnx")
    return source.proto, quantize(source, QuantizeOptions(mode="static"), feeds=IMAGES).model.proto


def test_no_layer_falls_out_of_the_fusion_into_integer_kernels(
    pair: tuple[onnx.ModelProto, onnx.ModelProto], tmp_path: Path
) -> None:
    convolutions = sum(node.op_type == "Conv" for node in pair[0].graph.node)
    found = kernels(pair[1], tmp_path)
    assert found.count("QLinearConv") == convolutions and "Conv" not in found
    assert "QGemm" in found and "Gemm" not in found


def test_what_is_not_payload_stays_below_120_bytes_a_node(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    # a Conv with five attributes and the exporter's name has 190 bytes, a DequantizeLinear of a stored tensor 57;
    # as the quantizer leaves it, it is more than 240 a node
    stored = pair[1].graph.initializer
    payload = sum(len(tensor.raw_data) for tensor in stored if tensor.dims)
    assert pair[1].ByteSize() - payload < 120 * len(pair[1].graph.node)


def test_stored_tensors_and_layers_keep_the_names_of_the_source(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    source, made = pair
    assert {t.name for t in source.graph.initializer} <= {t.name for t in made.graph.initializer}
    layers = {n.name for n in source.graph.node if n.op_type not in ("Relu", "Clip", "Constant")}
    assert layers <= {n.name for n in made.graph.node}
    weight = next(t for t in made.graph.initializer if t.name == "fc.weight")
    assert weight.data_type == onnx.TensorProto.INT8


def test_equal_constants_are_stored_once(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    added = [t for t in pair[1].graph.initializer if t.name.startswith("q")]
    assert added and len({(t.data_type, tuple(t.dims), t.raw_data) for t in added}) == len(added)


def test_a_name_that_the_source_uses_is_not_given_again() -> None:
    source = networks.convnet()
    for node in source.graph.node:
        node.output[:] = ["q1" if name == "r1" else name for name in node.output]
        node.input[:] = ["q1" if name == "r1" else name for name in node.input]
    feeds = [{"x": np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)}]
    made = quantize(source, QuantizeOptions(mode="static"), feeds=feeds).model.proto
    names = [t.name for t in made.graph.initializer] + [o for n in made.graph.node for o in n.output]
    assert "q1" in names and len(set(names)) == len(names)
    onnx.checker.check_model(made, full_check=True)


def test_integer_operators_give_what_the_same_model_as_qdq_gives_in_a_smaller_file(
    pair: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    source, qdq = pair
    result = quantize(source, QuantizeOptions(mode="static", format="qoperator"), feeds=IMAGES)
    made = result.model.proto
    kinds = {node.op_type for node in made.graph.node}
    assert "QLinearConv" in kinds and "Conv" not in kinds
    assert made.ByteSize() < 0.98 * qdq.ByteSize()
    assert np.array_equal(outputs(made), outputs(qdq))
    assert {n.name for n in source.graph.node if n.op_type == "Conv"} <= {n.name for n in made.graph.node}
    noise = [layer.sqnr_db for layer in result.layers if layer.operator == "Conv"]
    assert noise and all(value is not None for value in noise)


def test_the_format_is_refused_where_a_mode_has_only_one() -> None:
    with pytest.raises(UsageError, match="format qoperator is for --mode static"):
        QuantizeOptions(mode="dynamic", format="qoperator")


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_channels_of_the_result_can_be_removed_although_constants_are_shared(
    pair: tuple[onnx.ModelProto, onnx.ModelProto], form: str
) -> None:
    made = quantize(pair[0], QuantizeOptions(mode="static", format=form), feeds=IMAGES).model.proto
    result = prune(made, PruneOptions(ratio=0.3))
    assert result.model.proto.ByteSize() < 0.75 * made.ByteSize()
    masked = masked_model(result.channels, result.keep)
    assert np.array_equal(outputs(result.model.proto), outputs(masked.proto))


def outputs(proto: onnx.ModelProto) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, IMAGES[0])[0]
