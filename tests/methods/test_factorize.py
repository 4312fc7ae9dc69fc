"""Factors: full rank changes nothing, the error is what is reported, data halve it, and nothing is left behind."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.count import macs
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View
from onnxprune.methods.factors.forms import FactorProblem, pca
from onnxprune.methods.factors.replaceable import candidate
from onnxprune.methods.factors.replacing import rewrite
from onnxprune.methods.linear import linear_layers
from onnxprune.types import Array
from tests import networks, plain

RNG = np.random.default_rng(0)


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)[0]


def conv(kernel: tuple[int, ...] = (3, 3), **attributes: object) -> onnx.ModelProto:
    """One convolution of 12 channels to 16: x (2, 12, 9, 10)."""
    tensors = networks.weights(w=(16, 12, *kernel), b=(16,))
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 12, 9, 10][: 2 + len(kernel)])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])
    return networks.model([node], [x], [y], tensors)


def rows(count: int, width: int, seed: int = 0) -> Array:
    """Inputs that lie near to a plane, as activations do."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).standard_normal((width, width)) * 0.7 ** np.arange(width)[:, None]
    return (rng.standard_normal((count, width)) @ mix).astype(np.float32)


def mlp(operator: str = "Gemm", width: int = 64) -> onnx.ModelProto:
    """Two matrices: x (rows, width) -> y (rows, width)."""
    tensors = networks.weights(w1=(width, width), w2=(width, width), b=(width,))
    first = helper.make_node(operator, ["x", "w1"] + (["b"] if operator == "Gemm" else []), ["h"], "first")
    if operator == "Gemm":
        first.attribute.extend([helper.make_attribute("transB", 1), helper.make_attribute("alpha", 0.5)])
    nodes = [
        first,
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "two"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in ("x", "y")]
    return networks.model(nodes, ports[:1], ports[1:], tensors)


@pytest.mark.parametrize("form", ["low rank", "tucker", "spatial"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 0, 2, 1], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"dilations": [1, 2], "kernel_shape": [3, 3]},
    ],
    ids=["pads", "same", "dilated"],
)
def test_every_form_loses_what_it_says(form: str, attributes: dict[str, object]) -> None:
    proto = conv(**attributes)
    view = View(onnxprune.load(proto))
    layer = linear_layers(view)[0]
    item = candidate(view, trace(view), layer, layer.matrix(view.model), None, 1)
    option = [option for option in item.options if option.form == form][-1]
    parts = item.build(option)
    assert sum(part.size for part in parts) == option.params
    narrow = rewrite(view, {layer.name: (layer, option, parts)}).proto
    onnx.checker.check_model(narrow, full_check=True)
    lost, given = 0.0, 0.0
    for seed in range(20):
        x = np.random.default_rng(seed).standard_normal((2, 12, 9, 10)).astype(np.float32)
        y, bias = run(proto, {"x": x}), run(proto, {"x": 0 * x})
        lost += float(np.square(run(narrow, {"x": x}) - y).sum())
        given += float(np.square(y - bias).sum())
    # white noise sees all weights alike but for those that meet padding: hence the tolerance
    assert lost / given == pytest.approx(option.error, rel=0.25, abs=0.01)


@pytest.mark.parametrize(("outs", "features"), [(8, 20), (20, 8)])
def test_pca_is_the_best_of_its_rank_on_the_inputs(outs: int, features: int) -> None:
    weight = RNG.standard_normal((outs, features))
    inputs = rows(500, features).astype(np.float64)
    gram = inputs.T @ inputs / 500
    first, second, errors = pca(weight, gram)
    power = np.square(inputs @ weight.T).sum()
    exact = np.linalg.svd(inputs @ weight.T, compute_uv=False) ** 2
    for rank in (1, 3, 5):
        lost = np.square(inputs @ (weight - first[:, :rank] @ second[:rank]).T).sum() / power
        assert lost == pytest.approx(errors[rank], abs=1e-3)
        assert lost == pytest.approx(exact[rank:].sum() / exact.sum(), abs=1e-3)


def test_a_map_before_the_weight_is_fitted_to_the_inputs() -> None:
    weight, inputs = RNG.standard_normal((6, 12)), rows(400, 12).astype(np.float64)
    problem = FactorProblem(weight, inputs.T @ inputs / 400)
    basis = RNG.standard_normal((5, 12))
    fitted, _, error = problem.through(basis, problem.by_tap)
    best = np.linalg.lstsq(inputs @ basis.T, inputs @ weight.T, rcond=None)[0].T
    assert np.square(inputs @ (weight - fitted @ basis).T).mean() == pytest.approx(
        np.square(inputs @ (weight - best @ basis).T).mean(), rel=0.02
    )
    assert 0 < error < 1


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_data_at_least_halve_the_error_of_plain_svd(operator: str) -> None:
    proto, data, test = mlp(operator), [{"x": rows(256, 64)}], {"x": rows(128, 64, seed=1)}
    wanted = run(proto, test)
    errors = [
        float(np.square(run(plain.factorize(proto, given, params=0.5, **more).model.proto, test) - wanted).mean())
        for given, more in ((None, {}), (data, {"refit": False}), (data, {}))
    ]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[0]


def test_the_target_is_kept_and_old_weights_are_gone() -> None:
    proto = mlp()
    result = plain.factorize(proto, params=0.5)
    sizes = {t.name: int(np.prod(t.dims)) for t in result.model.proto.graph.initializer}
    assert sum(sizes.values()) <= 0.5 * (2 * 64 * 64 + 64)
    assert {"w1", "w2"} & sizes.keys() == {layer.key for layer in linear_layers(View(result.model))} & {"w1", "w2"}
    for layer in result.layers:
        assert not layer.ranks or layer.ranks[0] % 8 == 0
    names = [node.name for node in result.model.proto.graph.node]
    assert "relu" in names and ("two/reduce" in names or "first/reduce" in names)


def test_energy_bounds_the_error_of_every_layer() -> None:
    result = plain.factorize(mlp(), [{"x": rows(256, 64)}], energy=0.9)
    replaced = [layer for layer in result.layers if layer.form]
    assert replaced and all(layer.error <= 0.1 for layer in replaced)


def test_macs_left_are_those_asked_for() -> None:
    result = plain.factorize(networks.convnet(), macs=0.6)
    view = View(result.model)
    before = View(onnxprune.load(networks.convnet()))
    left = sum(macs(view, trace(view).shapes).values()) / sum(macs(before, trace(before).shapes).values())
    assert 0.3 < left <= 0.6


def test_a_table_becomes_rows_and_a_matrix() -> None:
    tensors = networks.weights(table=(200, 32))
    node = helper.make_node("Gather", ["table", "ids"], ["y"], "embed")
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, 32])
    proto = networks.model([node], [ids], [y], tensors)
    result = plain.factorize(proto, params=0.5)
    assert [n.op_type for n in result.model.proto.graph.node] == ["Gather", "MatMul"]
    feed = {"ids": RNG.integers(0, 200, (40, 5))}
    a, b = run(proto, feed), run(result.model.proto, feed)
    assert float(np.square(a - b).sum() / np.square(a).sum()) == pytest.approx(result.layers[0].error, rel=0.2)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_inputs_of_a_recurrent_layer_are_reduced_before_it(direction: str) -> None:
    number = 2 if direction == "bidirectional" else 1
    tensors = networks.weights(w=(number, 64, 48), r=(number, 64, 16))
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=16, direction=direction)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", number, "batch", 16])
    proto = networks.model([node], [x], [y], tensors)
    feed = {"x": 0.1 * rows(200, 48).reshape(20, 10, 48)}
    bare, white = (plain.factorize(proto, data, params=0.6) for data in (None, [feed]))
    reasons = {layer.name: layer.reason for layer in white.layers}
    assert "inside the operator" in str(reasons["lstm:recurrence"])
    wanted = run(proto, feed)
    errors = [float(np.square(run(r.model.proto, feed) - wanted).mean()) for r in (bare, white)]
    assert errors[1] < 0.5 * errors[0]


def test_shared_weights_grouped_convolutions_and_unreachable_targets_are_refused_with_reasons() -> None:
    grouped = networks.weights(w=(16, 3, 3, 3))
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=4)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 12, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])
    with pytest.raises(NothingToPruneError, match=r"cannot be reached|grouped"):
        plain.factorize(networks.model([node], [x], [y], grouped), params=0.5)
    tied = mlp("MatMul")
    tied.graph.node[2].input[1] = "w1"
    with pytest.raises(NothingToPruneError):
        plain.factorize(tied, energy=0.5)
    with pytest.raises(NothingToPruneError, match="at least"):
        plain.factorize(mlp(), params=0.01)


def test_external_weights_and_constant_nodes_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    proto = mlp()
    onnx.save(proto, path, save_as_external_data=True, size_threshold=256)
    result = plain.factorize(path, params=0.5)
    onnxprune.save(result.model, tmp_path / "out.onnx")
    feed = {"x": rows(8, 64)}
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    expected = run(plain.factorize(mlp(), params=0.5).model.proto, feed)
    assert np.allclose(session.run(None, feed)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"params": 1.0}, "outside"),
        ({"params": 0.5, "macs": 0.5}, "one target"),
        ({"whiten": True}, "--data"),
        ({"parms": 0.5}, "did you mean 'params'"),
        ({"only": "nothing*"}, "nothing"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_reason(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plain.factorize(mlp(), **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_layer_without_numbers_stays_and_says_so(value: float) -> None:
    proto = networks.convnet()
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    result = plain.factorize(proto, energy=0.5)
    lines = {layer.name: layer for layer in result.layers}
    assert "NaN or infinite" in lines["conv2"].reason and not lines["conv2"].form
    assert any(layer.form for layer in result.layers)
