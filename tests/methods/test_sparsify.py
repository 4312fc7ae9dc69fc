"""Zeros: exactly as many as asked, where the pattern wants them, and nearer to the original than by magnitude."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelError, NothingToPruneError, UsageError
from onnxprune.graph.view import View
from onnxprune.methods.linear import linear_layers
from onnxprune.methods.sparsity.patterns import Pattern, parse
from onnxprune.methods.sparsity.reconstruct import damped, polish, reconstruct
from onnxprune.methods.sparsity.shares import SCOPES
from onnxprune.types import Array
from tests import networks, plain

RNG = np.random.default_rng(0)
MIX = RNG.standard_normal((3, 3)) @ np.diag([2.0, 1.0, 0.3])
IMAGES = np.einsum("nchw,dc->ndhw", RNG.standard_normal((64, 3, 12, 12)), MIX).astype(np.float32)


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)[0]


def weights(model: onnxprune.Model) -> dict[str, Array]:
    """Matrix (outs, features) of every layer with one group, by layer."""
    return {layer.name: layer.matrix(model)[0] for layer in linear_layers(View(model))}


def error(original: onnx.ModelProto, model: onnxprune.Model) -> float:
    feed = {"x": IMAGES[48:]}
    a, b = run(original, feed), run(model.proto, feed)
    return float(np.square(a - b).mean() / np.square(a).mean())


@pytest.mark.parametrize("data", [None, {"x": IMAGES[:48]}], ids=["magnitude", "data"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_of_m_inputs_that_stand_side_by_side_n_stay(pattern: str, data: dict[str, Array] | None) -> None:
    result = plain.sparsify(networks.convnet(), None if data is None else [data], pattern=pattern)
    found = weights(result.model)
    n, m = (int(number) for number in pattern.split(":"))
    for name in ("conv2", "head"):
        left = np.count_nonzero(found[name].reshape(len(found[name]), -1, m), axis=2)
        assert (left == n).all()
    assert np.count_nonzero(found["conv1"]) == found["conv1"].size
    reason = next(layer.reason for layer in result.layers if layer.name == "conv1")
    assert reason is not None and "3 inputs are no multiple" in reason


def test_neighbours_of_a_convolution_are_input_channels_of_one_tap() -> None:
    model = plain.sparsify(networks.convnet(), pattern="2:4").model
    tensor = next(t for t in model.proto.graph.initializer if t.name == "w2")
    kernel = numpy_helper.to_array(tensor)
    assert (np.count_nonzero(kernel.reshape(32, 8, 4, 3, 3), axis=2) == 2).all()


def test_blocks_of_outputs_stay_or_go_together() -> None:
    found = weights(plain.sparsify(networks.convnet(), pattern="block:4x1", sparsity=0.75).model)["conv2"]
    blocks = np.count_nonzero(found.reshape(8, 4, -1), axis=1)
    assert set(np.unique(blocks)) == {0, 4} and (blocks == 0).mean() == pytest.approx(0.75, abs=1e-3)


def test_data_bring_the_outputs_nearer_than_magnitude_does() -> None:
    proto = networks.convnet()
    by_size = plain.sparsify(proto, sparsity=0.7)
    on_data = plain.sparsify(proto, [{"x": IMAGES[:48]}], sparsity=0.7)
    assert sum(layer.zeros for layer in by_size.layers) == pytest.approx(
        sum(layer.zeros for layer in on_data.layers), abs=3
    )
    assert error(proto, on_data.model) < 0.3 * error(proto, by_size.model)
    conv2 = next(layer for layer in on_data.layers if layer.name == "conv2")
    assert conv2.error is not None and conv2.magnitude_error is not None and conv2.error < conv2.magnitude_error


@pytest.mark.parametrize("score", ["wanda", "magnitude", "random"])
def test_every_score_gives_the_zeros_and_reconstruction_helps_it(score: str) -> None:
    proto, data = networks.convnet(), [{"x": IMAGES[:48]}]
    bare = plain.sparsify(proto, data, score=score, sparsity=0.6, reconstruct=False)
    helped = plain.sparsify(proto, data, score=score, sparsity=0.6)
    for result in (bare, helped):
        assert np.mean(weights(result.model)["conv2"] == 0) == pytest.approx(0.6, abs=0.01)
    assert error(proto, helped.model) < error(proto, bare.model)


def test_without_reconstruction_the_weights_that_stay_are_those_of_the_original() -> None:
    proto = networks.convnet()
    for options in ({}, {"data": [{"x": IMAGES[:48]}], "score": "wanda", "reconstruct": False}):
        after = weights(plain.sparsify(proto, sparsity=0.5, **options).model)
        for name, before in weights(onnxprune.load(proto)).items():
            assert np.allclose(after[name], np.where(after[name] != 0, before, 0), rtol=1e-6)


def test_reconstruct_beats_magnitude_and_polish_does_no_worse() -> None:
    inputs = RNG.standard_normal((400, 24)) @ RNG.standard_normal((24, 24))
    weight, hessian = RNG.standard_normal((8, 24)), damped(inputs.T @ inputs / 400)
    pattern = Pattern(2, 4)
    found, keep = reconstruct(weight, hessian, lambda s: pattern.keep(s, 0.5), 4)
    better = polish(found, weight, hessian, keep)

    def loss(w: Array) -> float:
        return float(np.trace((w - weight) @ hessian @ (w - weight).T))

    by_size = np.where(pattern.keep(np.abs(weight), 0.5), weight, 0)
    assert loss(better) <= loss(found) < loss(by_size)
    for row, mask, got in zip(weight, keep, better, strict=True):
        exact = np.linalg.solve(hessian[np.ix_(mask, mask)], hessian[mask] @ row)
        assert np.allclose(got[mask], exact, atol=1e-3)
        assert not got[~mask].any()


@pytest.mark.parametrize("scope", list(SCOPES))
def test_every_scope_gives_all_layers_together_the_sparsity(scope: str) -> None:
    sizes = {"small": (8, 16), "large": (64, 128), "conv": (32, 32, 3, 3)}
    scores = {name: (lambda s=shape: np.abs(RNG.standard_normal(s))) for name, shape in sizes.items()}
    shares = SCOPES[scope](scores, sizes, 0.8)
    counts = {name: np.prod(shape) for name, shape in sizes.items()}
    total = sum(shares[name] * counts[name] for name in sizes) / sum(counts.values())
    assert total == pytest.approx(0.8, abs=0.01)
    if scope in ("lamp", "erk"):
        assert shares["small"] < shares["large"]


def test_recurrent_weights_lose_inputs_of_each_gate() -> None:
    tensors = networks.weights(w=(1, 64, 16), r=(1, 64, 16))
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=16)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", 1, "batch", 16])
    proto = networks.model(nodes, [x], [y], tensors)
    feed = {"x": (RNG.standard_normal((20, 8, 16)) @ RNG.standard_normal((16, 16)) / 4).astype(np.float32)}
    results = [plain.sparsify(proto, data, pattern="2:4") for data in (None, [feed])]
    for result in results:
        for matrix in weights(result.model).values():
            assert (np.count_nonzero(matrix.reshape(64, -1, 4), axis=2) == 2).all()
    reference = run(proto, feed)
    errors = [float(np.square(run(result.model.proto, feed) - reference).mean()) for result in results]
    assert errors[1] < errors[0]


def test_weights_behind_identity_and_transpose_and_in_constant_nodes_are_found() -> None:
    stored, constant = networks.weights(w1=(32, 64), w2=(32, 16))
    nodes = [
        helper.make_node("Identity", ["w1"], ["w1.same"], "same"),
        helper.make_node("Transpose", ["w1.same"], ["w1.turned"], "turn", perm=[1, 0]),
        helper.make_node("Constant", [], ["w2"], "constant", value=constant),
        helper.make_node("MatMul", ["x", "w1.turned"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "second"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", s]) for n, s in (("x", 64), ("y", 16))]
    proto = networks.model(nodes, ports[:1], ports[1:], [stored])
    rows = RNG.standard_normal((64, 64)).astype(np.float32)
    for data in (None, [{"x": rows}]):
        found = weights(plain.sparsify(proto, data, pattern="2:4").model)
        assert {name: float((w == 0).mean()) for name, w in found.items()} == {"first": 0.5, "second": 0.5}


@pytest.mark.parametrize("data", [None, [{"x": IMAGES[:16]}]], ids=["magnitude", "data"])
def test_external_weights_stay_external(tmp_path: Path, data: list[dict[str, Array]]) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(networks.convnet(), path, save_as_external_data=True, size_threshold=256)
    result = plain.sparsify(path, data, sparsity=0.5)
    onnxprune.save(result.model, tmp_path / "out.onnx")
    written = onnxprune.load(tmp_path / "out.onnx")
    layer = next(layer for layer in linear_layers(View(written)) if layer.name == "conv2")
    assert layer.parameter.tensor.data_location == TensorProto.EXTERNAL
    assert np.mean(written.content(layer.key, layer.parameter.tensor) == 0) == pytest.approx(0.5, abs=0.01)


def test_sparse_storage_is_smaller_and_gives_the_same_outputs() -> None:
    proto = networks.convnet(width=64)
    dense = plain.sparsify(proto, sparsity=0.9)
    sparse = plain.sparsify(proto, sparsity=0.9, storage="sparse")
    assert sparse.model.size_bytes < 0.5 * dense.model.size_bytes
    feed = {"x": IMAGES[:4]}
    assert np.array_equal(run(dense.model.proto, feed), run(sparse.model.proto, feed))
    with pytest.raises(ModelError, match="67 %"):
        plain.sparsify(proto, sparsity=0.5, storage="sparse")


def test_skip_and_only_choose_layers() -> None:
    proto = networks.convnet()
    skipped = plain.sparsify(proto, sparsity=0.5, skip="conv2")
    assert {layer.name for layer in skipped.layers if layer.zeros} == {"conv1", "head"}
    only = plain.sparsify(proto, sparsity=0.5, only="head")
    assert {layer.name for layer in only.layers if layer.zeros} == {"head"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "outside"),
        ({"pattern": "4:2"}, "2:4"),
        ({"pattern": "2:4", "sparsity": 0.5}, "fixes"),
        ({"pattern": "2:4", "scope": "erk"}, "scope"),
        ({"score": "wanda"}, "--data"),
        ({"skip": "nothing*"}, "nothing"),
        ({"sparsty": 0.5}, "did you mean 'sparsity'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_reason(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plain.sparsify(networks.convnet(), **options)


def test_a_model_without_a_layer_for_the_pattern_is_told_why() -> None:
    with pytest.raises(NothingToPruneError, match="no multiple of 64"):
        plain.sparsify(networks.convnet(), pattern="32:64")


def test_patterns_survive_writing_and_reading() -> None:
    for text in ("2:4", "block:16x1", "free"):
        assert parse(text).name == text
