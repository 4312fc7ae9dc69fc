"""Quantization: what is kept exactly, what the noise may be, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import DataError, ModelError, NothingToPruneError, UsageError
from onnxprune.evidence.compare import open_reference
from onnxprune.evidence.limits import GateLimits
from onnxprune.graph.model import Model, load
from onnxprune.methods.quantization import bias, fold_norms, integer, prepare, ranges, rounding, smooth, weight_only
from onnxprune.methods.quantization.machine import IntegerTypes
from onnxprune.methods.quantization.native import declare_types
from onnxprune.methods.quantization.search import Judge
from onnxprune.methods.quantize import QuantizeResult, quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks

RNG = np.random.default_rng(0)
FEEDS = [{"x": RNG.standard_normal((2, 3, 12, 12)).astype(np.float32)} for _ in range(8)]
ROWS = [{"x": RNG.standard_normal((4, 32)).astype(np.float32)} for _ in range(4)]


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)[0]


def sqnr(original: onnx.ModelProto, result: QuantizeResult, feed: dict[str, Array]) -> float:
    a, b = run(original, feed), run(result.model.proto, feed)
    return 10 * float(np.log10(np.square(a).sum() / np.square(a - b).sum()))


def mlp(constants: bool = False, alias: bool = False) -> onnx.ModelProto:
    """Two Gemm layers: x (rows, 32) -> y (rows, 8); weights as Constant nodes, or behind Identity."""
    tensors = networks.weights(w1=(64, 32), b1=(64,), w2=(8, 64))
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2"], ["y"], "second", transB=1),
    ]
    if alias:
        for tensor in tensors:
            nodes.insert(0, helper.make_node("Identity", [f"{tensor.name}.stored"], [tensor.name], ""))
            tensor.name += ".stored"
    if constants:
        nodes = [helper.make_node("Constant", [], [t.name], "", value=t) for t in tensors] + nodes
        tensors = []
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", size]) for n, size in (("x", 32), ("y", 8))]
    return networks.model(nodes, ports[:1], ports[1:], tensors)


def transposed() -> onnx.ModelProto:
    """The two layers as MatMul with matrices that the graph transposes and scales."""
    source = mlp()
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    tensors["half"] = np.array(0.5, np.float32)
    nodes = [
        helper.make_node("Transpose", ["w1"], ["t1"], "turn", perm=[1, 0]),
        helper.make_node("Mul", ["t1", "half"], ["m1"], "scale"),
        helper.make_node("MatMul", ["x", "m1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Transpose", ["w2"], ["t2"], "turn again", perm=[1, 0]),
        helper.make_node("MatMul", ["r", "t2"], ["y"], "second"),
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return networks.model(nodes, source.graph.input, source.graph.output, stored)


def normed() -> onnx.ModelProto:
    """A convolution without bias and a batch normalization."""
    tensors = networks.weights(w=(4, 3, 3, 3), gamma=(4,), beta=(4,), mean=(4,))
    tensors.append(numpy_helper.from_array(np.array([0.5, 1, 2, 3], np.float32), "variance"))
    return networks.model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
            helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["y"], "norm"),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 10, 10])],
        tensors,
    )


@pytest.mark.parametrize(
    ("mode", "least"), [("static", 25), ("dynamic", 25), ("weight-only", 12), ("fp16", 50), ("bf16", 35)]
)
def test_every_mode_makes_a_smaller_model_that_runs_and_says_nearly_the_same(mode: str, least: float) -> None:
    """The least SQNR of a small random network is about 6 dB for a bit of the mantissa, less the layers' sum."""
    original = mlp()
    result = quantize(original, QuantizeOptions(mode=mode), feeds=ROWS, threads=1)
    assert sqnr(original, result, ROWS[0]) > least
    assert result.model.proto.ByteSize() < 0.75 * original.ByteSize()
    assert run(result.model.proto, {"x": np.zeros((7, 32), np.float32)}).shape == (7, 8)


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only", "bf16"])
@pytest.mark.parametrize("source", [mlp(constants=True), mlp(alias=True)])
def test_weights_in_constant_nodes_and_behind_identity_are_quantized_too(mode: str, source: onnx.ModelProto) -> None:
    plain = quantize(mlp(), QuantizeOptions(mode=mode), feeds=ROWS, threads=1)
    result = quantize(source, QuantizeOptions(mode=mode), feeds=ROWS, threads=1)
    assert result.model.proto.ByteSize() < 1.1 * plain.model.proto.ByteSize()
    assert len(result.layers) == len(plain.layers)
    np.testing.assert_allclose(run(result.model.proto, ROWS[0]), run(plain.model.proto, ROWS[0]), atol=1e-5)


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only"])
def test_weights_that_the_graph_computes_are_quantized_too(mode: str) -> None:
    source = transposed()
    result = quantize(source, QuantizeOptions(mode=mode), feeds=ROWS, threads=1)
    assert {"first", "second"} <= {layer.name for layer in result.layers}
    assert result.model.proto.ByteSize() < 0.5 * source.ByteSize()
    assert sqnr(source, result, ROWS[0]) > 12
    assert not {"Transpose", "Mul"} & {node.name for node in result.model.proto.graph.node}


@pytest.mark.parametrize("mode", ["static", "fp16", "bf16"])
def test_names_metadata_and_dynamic_sizes_stay(mode: str) -> None:
    source = networks.convnet()
    source.metadata_props.add(key="names", value="{0: 'cat'}")
    source.producer_name, source.doc_string = "trainer", "a network"
    before = source.SerializeToString()
    result = quantize(source, QuantizeOptions(mode=mode), feeds=FEEDS, threads=1).model.proto
    assert source.SerializeToString() == before
    assert list(result.metadata_props) == list(source.metadata_props)
    assert (result.producer_name, result.doc_string) == ("trainer", "a network")
    assert list(result.graph.input) == list(source.graph.input)
    assert list(result.graph.output) == list(source.graph.output)
    assert {"conv1", "conv2", "head"} <= {node.name for node in result.graph.node}
    assert {o.domain for o in result.opset_import} == {""}


def test_nodes_without_a_name_have_none_afterwards() -> None:
    source = mlp()
    for node in source.graph.node:
        node.name = ""
    result = quantize(source, QuantizeOptions(mode="static"), feeds=ROWS, threads=1)
    assert len({layer.name for layer in result.layers}) == len(result.layers) > 1
    assert [node.name for node in result.model.proto.graph.node if node.op_type == "Gemm"] == ["", ""]


def test_static_quantization_folds_batch_normalization_exactly() -> None:
    source = normed()
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    assert fold_norms.fold_norms(copy.graph) == 1
    assert [(node.op_type, list(node.output)) for node in copy.graph.node] == [("Conv", ["y"])]
    np.testing.assert_allclose(run(copy, FEEDS[0]), run(source, FEEDS[0]), atol=2e-5)


def test_a_norm_whose_input_is_read_elsewhere_stays() -> None:
    source = normed()
    source.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n", 4, 10, 10]))
    assert fold_norms.fold_norms(source.graph) == 0


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_ranges_of_batches_are_those_of_all_data_at_once(method: str) -> None:
    """Histograms of pieces have coarser edges: two of 2048 bins, four of the 128 that entropy begins with."""
    proto = prepare.prepare(load(networks.convnet()), 13).proto
    declare_types(proto)
    once = [{"x": np.concatenate([feed["x"] for feed in FEEDS])}]
    pieces = ranges.collect(proto, FEEDS, method=method, operators=["Conv"], threads=1)
    whole = ranges.collect(proto, once, method=method, operators=["Conv"], threads=1)
    assert set(pieces.keys()) == set(whole.keys()) == {"x", "c1", "r1", "c2"}
    share = {"minmax": 1e-6, "percentile": 0.02, "entropy": 0.5}[method]
    for name, data in pieces.items():
        low, high = (np.squeeze(value) for value in whole[name].range_value)
        assert np.allclose([np.squeeze(v) for v in data.range_value], [low, high], atol=share * (high - low))


@pytest.mark.parametrize(("bits", "rows"), [(4, 64), (4, 100), (4, 33), (8, 64), (8, 100)])
def test_packed_blocks_mean_to_onnxruntime_what_they_mean_here(bits: int, rows: int) -> None:
    matrix = RNG.standard_normal((rows, 24)).astype(np.float32)
    codes, scales, zeros = weight_only.round_blocks(matrix, bits, 32)
    meant = ((codes.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(24, -1)[:, :rows].T
    parts = {"b": weight_only.pack(codes, bits), "s": scales, "z": weight_only.pack(zeros, bits)}
    node = helper.make_node(
        "MatMulNBits", ["x", *parts], ["y"], domain="com.microsoft", K=rows, N=24, bits=bits, block_size=32
    )
    proto = networks.model(
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 24])],
        [numpy_helper.from_array(array, name) for name, array in parts.items()],
        ["com.microsoft"],
    )
    np.testing.assert_allclose(run(proto, {"x": np.eye(rows, dtype=np.float32)}), meant, atol=1e-5)


def test_clipped_blocks_are_nearer_than_the_full_range() -> None:
    matrix = RNG.standard_normal((256, 16)).astype(np.float32)

    def error(shrinks: tuple[float, ...]) -> float:
        weight_only.SHRINKS, kept = shrinks, weight_only.SHRINKS
        try:
            codes, scales, zeros = weight_only.round_blocks(matrix, 4, 32)
        finally:
            weight_only.SHRINKS = kept
        meant = ((codes.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(16, -1).T
        return float(np.square(meant - matrix).mean())

    assert error(weight_only.SHRINKS) < 0.97 * error(())


def test_layers_stay_float_until_the_gate_holds_and_no_more_than_needed() -> None:
    """One weight of -1000 of a unit that never fires takes the whole range, so that nothing is left of the others."""
    source = mlp()
    weight = next(t for t in source.graph.initializer if t.name == "w2")
    values = numpy_helper.to_array(weight).copy()
    values[3, 5] = -1000
    weight.CopyFrom(numpy_helper.from_array(values, "w2"))
    bias = next(t for t in source.graph.initializer if t.name == "b1")
    values = numpy_helper.to_array(bias).copy()
    values[5] = -10
    bias.CopyFrom(numpy_helper.from_array(values, "b1"))
    options = QuantizeOptions(mode="static", per_channel=False, guard=False)
    reference = open_reference(Model(source), data=ROWS, threads=1)
    assert Judge(reference, GateLimits(min_sqnr=12)).failures(quantize(source, options, feeds=ROWS).model)
    judge = Judge(reference, GateLimits(min_sqnr=12), threads=1)
    result = quantize(source, options, feeds=ROWS, judge=judge, threads=1)
    assert not judge.failures(result.model)
    assert [layer.name for layer in result.layers if not layer.quantized] == ["second"]
    assert [layer.name for layer in result.layers if layer.quantized and layer.operator == "Gemm"] == ["first"]


def test_skip_only_and_blocked_operators_stay_float() -> None:
    source = networks.convnet()
    for options in ({"skip": "conv1"}, {"only": ("conv2", "head")}):
        result = quantize(source, QuantizeOptions(mode="static", **options), feeds=FEEDS, threads=1)
        assert {layer.name for layer in result.layers if layer.operator in ("Conv", "Gemm")} == {"conv2", "head"}
        stored = {tensor.name: tensor.data_type for tensor in result.model.proto.graph.initializer}
        assert stored["w1"] == TensorProto.FLOAT and stored["w2"] == TensorProto.INT8
    result = quantize(source, QuantizeOptions(mode="fp16", op_block_list=("Gemm",)), feeds=FEEDS, threads=1)
    stored = {tensor.name: tensor.data_type for tensor in result.model.proto.graph.initializer}
    assert stored["w3"] == TensorProto.FLOAT and stored["w1"] == TensorProto.FLOAT16


def test_an_old_opset_is_raised_and_said_so() -> None:
    source = networks.convnet()
    source.opset_import[0].version = 11
    result = quantize(source, QuantizeOptions(mode="static"), feeds=FEEDS, threads=1)
    assert result.model.proto.opset_import[0].version == 13 and "11 to 13" in result.warnings[0]
    assert sqnr(source, result, FEEDS[0]) > 25


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight-only", "fp16"])
def test_a_model_that_is_quantized_already_is_refused(mode: str) -> None:
    once = quantize(mlp(), QuantizeOptions(mode=mode), feeds=ROWS, threads=1).model
    with pytest.raises(ModelError, match="quantized already"):
        quantize(once, QuantizeOptions(mode="dynamic"), feeds=ROWS)


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(NothingToPruneError, match="convolutions"):
        convolutions = networks.convnet()
        del convolutions.graph.node[-1]
        convolutions.graph.output[0].name = "flat"
        quantize(convolutions, QuantizeOptions(mode="dynamic"))
    with pytest.raises(DataError, match="--data"):
        quantize(mlp(), QuantizeOptions(mode="static"))
    with pytest.raises(UsageError, match="nothing"):
        quantize(mlp(), QuantizeOptions(mode="static", skip=("nothing",)), feeds=ROWS)
    with pytest.raises(UsageError, match="4"):
        QuantizeOptions(mode="static", bits=4)


def test_external_weights_are_quantized(tmp_path: Path) -> None:
    source = mlp()
    onnx.save(source, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0, location="net.data")
    result = quantize(tmp_path / "net.onnx", QuantizeOptions(mode="weight-only"), threads=1)
    inside = quantize(mlp(), QuantizeOptions(mode="weight-only"), threads=1)
    assert run(result.model.proto, ROWS[0]).tolist() == run(inside.model.proto, ROWS[0]).tolist()


def test_rounding_with_the_gram_has_less_error_on_the_data_than_rounding_to_nearest() -> None:
    mixed = RNG.standard_normal((96, 12)) @ RNG.standard_normal((12, 96))
    rows = RNG.standard_normal((500, 96)) @ (mixed + 0.3 * np.eye(96))
    matrix = RNG.standard_normal((96, 24)).astype(np.float32)

    def error(parts: tuple[Array, Array, Array]) -> float:
        codes, scales, zeros = parts
        meant = ((codes.astype(np.float32) - zeros[..., None]) * scales[..., None]).reshape(24, -1)[:, :96].T
        return float(np.square(rows @ (meant - matrix)).mean())

    gram = rows.T @ rows / len(rows)
    assert error(rounding.round_with_gram(matrix, gram, 4, 32)) < 0.5 * error(weight_only.round_blocks(matrix, 4, 32))


def test_rounding_with_white_data_is_rounding_to_nearest_and_fits_blocks_that_are_not_full() -> None:
    matrix = RNG.standard_normal((40, 6)).astype(np.float32)
    for one, two in zip(
        rounding.round_with_gram(matrix, np.eye(40), 4, 32), weight_only.round_blocks(matrix, 4, 32), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def block() -> onnx.ModelProto:
    """A LayerNormalization with one large channel before two products: x (rows, 32) -> y (rows, 8), z (rows, 8)."""
    tensors = networks.weights(scale=(32,), shift=(32,), a=(32, 8), b=(8, 32))
    scale = numpy_helper.to_array(tensors[0]).copy()
    scale[3] = 60
    tensors[0].CopyFrom(numpy_helper.from_array(scale, "scale"))
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "a"], ["y"], "first"),
        helper.make_node("Gemm", ["n", "b"], ["z"], "second", transB=1),
    ]
    sizes = {"x": 32, "y": 8, "z": 8}
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", size]) for n, size in sizes.items()]
    return networks.model(nodes, ports[:1], ports[1:], tensors)


def test_smoothing_changes_nothing_but_levels_the_channels() -> None:
    source = block()
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    assert smooth.smooth(copy, ROWS, ()) == 1
    np.testing.assert_allclose(run(copy, ROWS[0]), run(source, ROWS[0]), rtol=1e-3, atol=1e-4)
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (source, copy))
    assert np.abs(after["scale"]).max() < 0.5 * np.abs(before["scale"]).max()
    assert smooth.smooth(copy, ROWS, ("first",)) == 0


def test_smoothing_lowers_the_noise_of_static_quantization() -> None:
    plain = quantize(block(), QuantizeOptions(mode="static"), feeds=ROWS, threads=1)
    smoothed = quantize(block(), QuantizeOptions(mode="static", smooth=True), feeds=ROWS, threads=1)
    assert smoothed.settings["smoothed"] == 1
    assert sqnr(block(), smoothed, ROWS[0]) > sqnr(block(), plain, ROWS[0])


def test_corrected_biases_leave_no_mean_error_in_a_layer_of_its_own() -> None:
    """What is left after the correction is what rounding the bias itself adds."""
    proto = prepare.prepare(load(networks.convnet()), 13).proto
    declare_types(proto)
    operators = ["Conv", "Relu", "Gemm"]
    found = ranges.collect(proto, FEEDS, method="minmax", operators=operators, threads=1)
    how = integer.Integers(IntegerTypes("u8", "s8", False), per_channel=False)
    quantized = integer.quantize_static(proto, found, how, operators, ())
    before = bias.mean_errors(proto, quantized, FEEDS, threads=1)
    assert set(before) == {"conv1", "conv2", "head"}
    corrected = onnx.ModelProto()
    corrected.CopyFrom(proto)
    bias.add_to_biases(corrected, before)
    after = bias.mean_errors(proto, integer.quantize_static(corrected, found, how, operators, ()), FEEDS, threads=1)
    for name, error in before.items():
        assert np.abs(after[name]).mean() < 0.4 * np.abs(error).mean()


def test_bias_correction_is_part_of_static_mode_when_asked_for() -> None:
    result = quantize(
        networks.convnet(),
        QuantizeOptions(mode="static", correct_bias=True, rounding="nearest"),
        feeds=FEEDS,
        threads=1,
    )
    assert result.settings["corrected_biases"] == 3
    assert sqnr(networks.convnet(), result, FEEDS[0]) > 25
