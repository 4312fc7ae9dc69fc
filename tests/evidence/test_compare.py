"""Two models are compared on the same inputs; what cannot be compared or run ends in one clear line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.evidence.bench import bench
from onnxprune.evidence.compare import compare, open_reference, self_noise
from onnxprune.evidence.evaluation import evaluate
from onnxprune.evidence.limits import GateLimits
from onnxprune.evidence.masked import masked_parity
from onnxprune.evidence.parity import Parity
from onnxprune.graph.model import load
from onnxprune.graph.session import open_session
from onnxprune.graph.view import View
from tests import networks
from tests.micro.build import Net


def changed(proto: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return copy


def test_a_model_against_itself_is_identical() -> None:
    proto = networks.convnet()
    with open_session(load(proto), threads=1) as session:
        comparison = compare(open_reference(load(proto), threads=1), session)
    figures = comparison.parity["logits"]
    assert figures is not None and figures.kind == "scores"
    assert (figures.cosine, figures.sqnr_db, figures.max_abs, figures.agreement) == (1.0, 300.0, 0.0, 1.0)
    assert figures.centred_cosine == pytest.approx(1.0)
    assert comparison.inputs == "3 random inputs (seed 0)" and not comparison.warnings


def test_a_scaled_head_keeps_the_cosine_and_loses_the_sqnr() -> None:
    proto = networks.convnet()
    other = changed(changed(proto, "w3", 1.1), "b3", 1.1)
    with open_session(load(other), threads=1) as session:
        figures = compare(open_reference(load(proto), threads=1), session).parity["logits"]
    assert figures is not None
    assert figures.cosine == pytest.approx(1.0, abs=1e-6)
    assert figures.sqnr_db == pytest.approx(20.0, abs=0.01)


def test_the_noise_of_a_float32_model_is_that_of_rounding() -> None:
    model = load(networks.convnet())
    noise = self_noise(open_reference(model, threads=1), threads=1)
    assert 0 <= noise.relative_errors()["logits"] < 1e-5


@pytest.mark.parametrize(("factor", "fails"), [(1.0, False), (1.01, True)])
def test_masked_parity_tells_a_wrong_model_from_a_right_one(factor: float, fails: bool) -> None:
    model = load(networks.convnet())
    reference = open_reference(model, threads=1)
    outcome = masked_parity(reference, model, load(changed(model.proto, "w2", factor)), View(model), threads=1)
    assert outcome.failed == (("logits",) if fails else ())
    assert not outcome.unsure


def test_a_label_is_judged_by_the_scores_before_it() -> None:
    proto = networks.convnet()
    proto.graph.node.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["batch"]))
    model, other = load(proto), load(changed(changed(proto, "w3", -1), "b3", -1))
    outcome = masked_parity(open_reference(model, threads=1), model, other, View(model), threads=1)
    assert outcome.failed == outcome.inner == ("logits",) and not outcome.unsure


def test_models_with_different_outputs_are_refused_by_name() -> None:
    proto = networks.convnet()
    other = networks.convnet()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "scores"
    with open_session(load(other), threads=1) as session, pytest.raises(ModelError, match="'logits'"):
        compare(open_reference(load(proto), threads=1), session)


def test_a_compressed_model_that_lost_its_dynamic_batch_is_refused() -> None:
    with (
        open_session(load(networks.convnet(batch=1)), threads=1) as session,
        pytest.raises(ModelError, match="not run"),
    ):
        compare(open_reference(load(networks.convnet()), threads=1), session)


def test_an_operator_that_onnxruntime_does_not_have_is_named() -> None:
    with pytest.raises(ModelError, match="Mystery") as caught:
        open_session(load(networks.custom()))
    assert "\n" not in str(caught.value) and "ONNXRuntimeError" not in str(caught.value)


def test_an_unknown_provider_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="CPU"):
        open_session(load(networks.convnet()), provider="abacus")


def test_data_of_another_shape_are_refused_with_both_shapes() -> None:
    feeds = [{"x": np.zeros((1, 3, 5, 5), np.float32)}]
    with pytest.raises(DataError, match=r"\[1, 3, 5, 5\].*12"):
        open_reference(load(networks.convnet()), data=feeds, threads=1)


def test_gates_name_the_worst_output_and_pass_at_the_limit() -> None:
    parity = {"a": Parity(0.99, 20.0, 0.1, None), "b": Parity(0.9, 10.0, 0.1, 0.8)}
    assert GateLimits(min_cosine=0.9, min_sqnr=10, min_agreement=0.8).failures(parity, None) == []
    (failure,) = GateLimits(min_cosine=0.95).failures(parity, None)
    assert "'b'" in failure and "0.9" in failure
    assert GateLimits(max_drop=0.1).failures({}, 0.2) and not GateLimits(max_drop=0.1).failures({}, 0.1)


def test_a_gate_on_what_could_not_be_measured_fails() -> None:
    assert GateLimits(min_cosine=0.1).failures({"boxes": None}, None)
    assert GateLimits(min_agreement=0.1).failures({"a": Parity(1, 300, 0, None)}, None)
    assert GateLimits(min_sqnr=1).failures({}, None)


def test_a_gate_on_agreement_takes_the_user_at_their_word_where_there_could_be_classes() -> None:
    limit = GateLimits(min_agreement=0.9)
    maybe = Parity(1, 300, 0, None, top1=0.95)
    assert limit.failures({"a": maybe}, None) == []
    assert limit.failures({"a": Parity(1, 300, 0, None, top1=0.5)}, None)
    assert limit.failures({"a": Parity(1, 300, 0, None, top1=0.5), "b": Parity(1, 300, 0, 0.95)}, None) == []


def test_an_output_that_is_not_finite_keeps_no_limit() -> None:
    for share in ((0.0, 0.1), (0.1, 0.0), (0.5, 0.5)):
        broken = {"a": Parity(1.0, 300.0, 0.0, 1.0, not_finite=share)}
        limits = ({"min_cosine": -1}, {"min_sqnr": -300}, {"min_agreement": 0}, {"max_drop": 1})
        for gates in (GateLimits(**limit) for limit in limits):
            assert any("NaN" in text for text in gates.failures(broken, 0.0))
        assert GateLimits().failures(broken, None) == []


def test_the_users_function_may_take_a_path_or_a_session(tmp_path: Path) -> None:
    path = networks.store(networks.convnet(), tmp_path / "m.onnx")
    assert evaluate(lambda name: len(name), path, "f") == len(str(path))
    assert evaluate(lambda session: len(session.get_outputs()), path, "f") == 1
    assert evaluate(lambda name: {"metric": "accuracy", "value": 0.5}, path, "f") == 0.5
    with pytest.raises(DataError, match="ZeroDivisionError"):
        evaluate(lambda name: 1 / 0, path, "f")


def test_bench_names_every_model_even_the_same_one_twice(tmp_path: Path) -> None:
    path = networks.store(networks.convnet(), tmp_path / "m.onnx")
    timings = bench([path, path, networks.convnet()], runs=3, warmup=1, threads=1)
    assert list(timings) == [str(path), f"{path} (2)", "model 3"]
    assert all(timing.median_ms > 0 for timing in timings.values())


def ranked(by: str, seed: int = 0) -> onnx.ModelProto:
    """Return boxes and scores of 36 places, ordered by TopK, chosen by NonMaxSuppression or by a threshold."""
    net = Net(seed=seed)
    features = net.Relu(net.conv(net.input("batch", 3, 6, 6), 3, 8))
    scores = net.reshape(net.Sigmoid(net.conv(features, 8, 1)), -1, 36)
    boxes = net.transpose(net.reshape(net.conv(features, 8, 4), -1, 4, 36), 0, 2, 1)
    if by == "TopK":
        values, places = net.TopK(scores, np.array([9]), axis=1, outputs=2)
        net.output(values, net.GatherND(boxes, net.unsqueeze(places, 2), batch_dims=1))
    elif by == "NonMaxSuppression":
        limits = np.array(9), np.array(0.5, np.float32), np.array(0.1, np.float32)
        chosen = net.NonMaxSuppression(boxes, net.unsqueeze(scores, 1), *limits)
        net.output(net.GatherND(boxes, net.Gather(chosen, np.array([0, 2]), axis=1)))
    else:
        chosen = net.transpose(net.NonZero(net.Greater(scores, net.number(0.5))), 1, 0)
        net.output(net.GatherND(boxes, chosen))
    return net.model()


@pytest.mark.parametrize("by", ["TopK", "NonMaxSuppression", "a threshold"])
def test_sorted_lists_are_compared_before_their_sort(by: str) -> None:
    proto = ranked(by)
    near = changed(proto, next(t.name for t in proto.graph.initializer if len(t.dims) == 4), 1.002)
    for other, low, high in ((near, 0.999, 1.0), (ranked(by, seed=1), -1.0, 0.9)):
        reference = open_reference(load(proto), threads=1, samples=6)
        with open_session(load(other), threads=1) as session:
            comparison = compare(reference, session)
        for figures in comparison.parity.values():
            assert figures is not None and figures.kind == "sorted" and figures.judged_at
            assert figures.centred_cosine is not None and low <= figures.centred_cosine <= high
            assert figures.agreement is None
        assert not any("shape" in warning for warning in comparison.warnings)
