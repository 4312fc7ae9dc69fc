"""Values that float16 cannot hold: what makes and reads them stays float32, and the user hears of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.errors import ModelError
from onnxprune.methods.quantization import overflow
from onnxprune.methods.quantize import QuantizeResult, quantize
from onnxprune.methods.quantize_options import QuantizeOptions
from onnxprune.types import Array
from tests import networks

FLOAT = TensorProto.FLOAT
node = helper.make_node


def graph(nodes: list[onnx.NodeProto], **stored: Array) -> onnx.ModelProto:
    """Return a model x (4, 64) -> y, with two large products around what is given: x -> a, b -> y."""
    rng = np.random.default_rng(0)
    stored |= {name: rng.standard_normal((64, 64)) / 8 for name in ("first", "last")}
    every = [node("MatMul", ["x", "first"], ["a"]), *nodes, node("MatMul", ["b", "last"], ["y"])]
    for item in every:
        item.name = item.output[0]
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in stored.items()]
    ports = [helper.make_tensor_value_info(name, FLOAT, [4, 64]) for name in ("x", "y")]
    return networks.model(every, ports[:1], ports[1:], tensors)


def feeds(scale: float = 1.0) -> list[dict[str, Array]]:
    x = np.random.default_rng(1).standard_normal((4, 64)) * scale
    return [{"x": x.astype(np.float32)}]


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0], np.float64)


def half(proto: onnx.ModelProto, given: list[dict[str, Array]]) -> QuantizeResult:
    return quantize(proto, QuantizeOptions(mode="fp16"), feeds=given)


def noise_db(proto: onnx.ModelProto, result: QuantizeResult, feed: dict[str, Array]) -> float:
    before, after = run(proto, feed), run(result.model.proto, feed)
    return float(10 * np.log10(np.square(before).sum() / np.square(before - after).sum()))


def normalised() -> onnx.ModelProto:
    """A BatchNormalization whose variance is far beyond float16."""
    norm = node("BatchNormalization", ["a", "gain", "shift", "mean", "variance"], ["b"])
    return graph(
        [norm], gain=np.full(64, 3e4), shift=np.ones(64), mean=np.linspace(-1, 1, 64), variance=np.full(64, 1e9)
    )


def scaled() -> onnx.ModelProto:
    """A stored factor beyond float16, undone by one that is too small."""
    return graph(
        [node("Mul", ["a", "large"], ["up"]), node("Mul", ["up", "small"], ["b"])], large=1e6, small=[1e-6] * 64
    )


def squared() -> onnx.ModelProto:
    """Everything stored fits, what is computed does not."""
    return graph(
        [node("Mul", ["a", "a"], ["q"]), node("Mul", ["q", "a"], ["c"]), node("Mul", ["c", "back"], ["b"])], back=1e-3
    )


def filled() -> onnx.ModelProto:
    """The large value is in an attribute."""
    value = helper.make_tensor("value", FLOAT, [1], [2e5])
    shape = numpy_helper.from_array(np.array([64]), "shape")
    proto = graph(
        [
            node("ConstantOfShape", ["shape"], ["full"], value=value),
            node("Div", ["a", "full"], ["d"]),
            node("Mul", ["d", "back"], ["b"]),
        ],
        back=1e5,
    )
    proto.graph.initializer.append(shape)
    return proto


@pytest.mark.parametrize(("make", "stays"), [(normalised, {"b"}), (scaled, {"up", "b"}), (filled, {"full", "d", "b"})])
def test_stored_values_beyond_float16_keep_their_readers_in_float32(
    make: Callable[[], onnx.ModelProto], stays: set[str]
) -> None:
    proto, given = make(), feeds()
    result = half(proto, given)
    assert noise_db(proto, result, given[0]) > 40
    assert {layer.name for layer in result.layers if not layer.quantized} >= stays
    assert len(result.model.proto.SerializeToString()) < 0.65 * len(proto.SerializeToString())
    assert any("stay float32" in text for text in result.warnings)


def test_computed_values_beyond_float16_are_found_by_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    proto, given = squared(), feeds(60.0)
    small, large = half(proto, feeds()), half(proto, given)
    assert not small.warnings and all(layer.quantized for layer in small.layers)
    assert {layer.name for layer in large.layers if not layer.quantized} == {"c", "b"}
    assert noise_db(proto, large, given[0]) > 40
    monkeypatch.setattr(overflow, "beyond_float16", lambda *_: overflow.Beyond(frozenset(), {}))
    with np.errstate(all="ignore"):  # onnxruntime's CPU computes some of it in float32, the reference does not
        plain = ReferenceEvaluator(half(proto, given).model.proto).run(None, given[0])[0]
        kept = ReferenceEvaluator(large.model.proto).run(None, given[0])[0]
    assert np.isfinite(kept).all() and not np.isfinite(plain).all()


def test_an_output_beyond_float16_is_not_made_infinite_on_its_way() -> None:
    proto = graph([node("Mul", ["a", "large"], ["b"])], large=1e6)
    result = half(proto, feeds())
    assert np.isfinite(run(result.model.proto, feeds()[0])).all()
    assert noise_db(proto, result, feeds()[0]) > 40


def test_what_stands_for_infinity_may_be_clipped() -> None:
    mask = np.where(np.eye(4, 64) > 0, np.finfo(np.float32).min, 0)
    proto = graph([node("Add", ["a", "mask"], ["m"]), node("Softmax", ["m"], ["b"], axis=-1)], mask=mask)
    result = half(proto, feeds())
    assert all(layer.quantized for layer in result.layers)
    assert noise_db(proto, result, feeds()[0]) > 40


def test_inside_a_body_it_is_refused_with_the_name_of_the_tensor() -> None:
    then = helper.make_graph(
        [node("Mul", ["a", "inner"], ["t"], "t")],
        "then",
        [],
        [helper.make_tensor_value_info("t", FLOAT, [4, 64])],
        [numpy_helper.from_array(np.float32(1e7), "inner")],
    )
    other = helper.make_graph(
        [node("Identity", ["a"], ["e"], "e")], "else", [], [helper.make_tensor_value_info("e", FLOAT, [4, 64])]
    )
    proto = graph([node("If", ["condition"], ["b"], then_branch=then, else_branch=other)])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    with pytest.raises(ModelError, match=r"'inner' holds 1e\+07"):
        half(proto, feeds())


def test_a_cast_that_the_model_has_itself_stays() -> None:
    nodes = [
        node("Cast", ["x"], ["short"], to=TensorProto.FLOAT16),
        node("Cast", ["short"], ["long"], to=FLOAT),
        node("Cast", ["long"], ["long_fp16"], to=TensorProto.FLOAT16),
        node("Cast", ["long_fp16"], ["long_fp32"], to=FLOAT),
        node("Neg", ["long_fp32"], ["y"]),
    ]
    made = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info(name, FLOAT, [1]) for name in ("y",)], [])
    overflow.join_casts(made, {"x", "short", "long", "y"})
    assert [item.op_type for item in made.node] == ["Cast", "Cast", "Cast", "Neg"]
    assert made.node[2].input[0] == "long"
