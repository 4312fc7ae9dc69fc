"""Laws of a prune: nothing changes nothing, a plan repeats it, what is asked for is what is done."""

from __future__ import annotations

import importlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxprune
from models import zoo
from onnxprune import ModelError, NothingToPruneError, Plan, UsageError
from onnxprune.graph import count
from onnxprune.score.criteria import SCORES, names
from tests import plain
from tests.networks import convnet

SMALL = ["fm_resnet20/model_bn", "fm_mbv2/model", "fm_rnn/model", "fm_vit/model", "ocr_cls/model"]


def trained(name: str):
    return next(path for path in zoo.trained() if str(path).endswith(f"{name}.onnx"))


def left(result: onnxprune.PruneResult, what=count.params) -> float:
    channels = result.channels
    shapes = [channels.shapes(keep) for keep in ({}, result.keep)]
    before, after = (sum(what(channels.view, s).values()) for s in shapes)
    return after / before


@pytest.mark.parametrize("name", SMALL)
def test_ratio_zero_gives_the_source_itself_and_an_empty_plan(name):
    source = onnxprune.load(trained(name))
    result = plain.prune(source, ratio=0)
    assert result.model.proto.SerializeToString() == source.path.read_bytes()
    assert result.plan.removed == {} and result.plan.groups == [] and result.keep == {}


@pytest.mark.parametrize("name", SMALL)
def test_a_pruned_model_runs_and_the_source_is_untouched(name):
    path = trained(name)
    proto = onnx.load(path)
    before = proto.SerializeToString(deterministic=True)
    result = plain.prune(proto, ratio=0.4)
    assert proto.SerializeToString(deterministic=True) == before
    assert left(result) < 0.99
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(result.model.proto.SerializeToString(), options)
    assert [o.name for o in session.get_outputs()] == [o.name for o in proto.graph.output]


@pytest.mark.parametrize("name", SMALL)
def test_a_plan_survives_writing_and_gives_the_same_bytes(name):
    result = plain.prune(trained(name), ratio=0.5, align=1)
    again = plain.apply(trained(name), Plan.from_json(result.plan.to_json()))
    assert again.model.proto.SerializeToString() == result.model.proto.SerializeToString()
    assert again.plan.removed == result.plan.removed


def test_the_same_options_give_the_same_bytes_and_another_seed_others():
    one, same, other = (
        plain.prune(trained("fm_mbv2/model"), ratio=0.5, score="random", seed=seed).model.proto.SerializeToString()
        for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("score", [name for name in names() if not SCORES[name].needs_data])
def test_every_score_prunes(score):
    result = plain.prune(trained("fm_resnet20/model_bn"), ratio=0.4, score=score)
    assert not result.warnings
    assert left(result) < 0.5


def test_a_score_that_falls_back_says_so():
    result = plain.prune(trained("fm_mbv2/model"), ratio=0.4, score="bn-scale")
    assert "no BatchNorm scale" in result.warnings[0]


@pytest.mark.parametrize(("target", "what"), [("macs", count.macs), ("params", count.params)])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_target_is_met(target, what, scope):
    result = plain.prune(trained("fm_mbv2/model"), **{target: 0.4}, scope=scope)
    assert left(result, what) == pytest.approx(0.4, rel=0.02)


def test_the_size_of_the_file_is_met(tmp_path):
    path = trained("fm_resnet20/model")
    result = plain.prune(path, size=0.5)
    onnxprune.save(result.model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size == pytest.approx(0.5 * path.stat().st_size, rel=0.02)


def test_an_unreachable_target_writes_nothing_and_says_how_far_it_got():
    with pytest.raises(NothingToPruneError, match=r"--macs 0.001 cannot be reached: .* is left"):
        plain.prune(trained("fm_mbv2/model"), macs=0.001)


def test_aligned_widths_are_multiples():
    result = plain.prune(convnet(width=64), ratio=0.4)
    widths = [t.dims[0] for t in result.model.proto.graph.initializer if t.name in ("w1", "w2")]
    assert widths == [40, 40]


def test_skip_keeps_all_weights_of_a_node():
    path = trained("fm_resnet20/model_bn")
    node = next(n for n in onnx.load(path).graph.node if n.op_type == "Conv" and "layers.4" in n.input[1])
    result = plain.prune(path, ratio=0.5, skip=node.name)
    assert node.input[1] not in result.plan.removed
    assert result.plan.removed and "named by skip" in result.reasons.values()


def test_only_prunes_what_a_node_writes():
    result = plain.prune(convnet(), ratio=0.5, only=["conv1"])
    assert set(result.plan.removed) == {"w1", "b1", "w2"}
    assert list(result.plan.removed["w2"]) == [1]


def test_own_ratios_go_to_the_groups_that_a_pattern_names():
    result = plain.prune(convnet(), ratios={"conv1": 0.75}, align=1)
    kept = {t.name: t.dims[0] for t in result.model.proto.graph.initializer}
    assert (kept["w1"], kept["w2"]) == (8, 32)


def test_exact_only_leaves_groups_that_are_normalised_over():
    result = plain.prune(trained("fm_vit/model"), ratio=0.5, exact_only=True)
    assert any("not exact" in reason for reason in result.reasons.values())
    assert all(g.exact for g in result.channels.groups if g.name in result.keep)


def test_a_graphsurgeon_graph_is_taken():
    import onnx_graphsurgeon as gs

    result = plain.prune(gs.import_onnx(convnet()), ratio=0.5)
    assert left(result) < 0.5


def test_a_ratio_that_rounds_to_nothing_is_refused():
    with pytest.raises(NothingToPruneError, match="rounds to no channel"):
        plain.prune(convnet(), ratio=0.01)


def test_a_model_without_anything_to_prune_says_why():
    with pytest.raises(NothingToPruneError, match=r"nothing can be pruned: named by skip"):
        plain.prune(convnet(), ratio=0.5, skip=["*"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight])
    with pytest.raises(NothingToPruneError, match=r"is an (input|output) of the model"):
        plain.prune(helper.make_model(graph, ir_version=8), ratio=0.5)


def test_a_model_without_weights_is_refused():
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    with pytest.raises(ModelError, match="has no weights"):
        plain.prune(helper.make_model(graph, ir_version=8), ratio=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, r"ratio 1 is outside \[0, 1\)"),
        ({"ratio": -0.1}, "outside"),
        ({"ratio": float("nan")}, "outside"),
        ({"ratio": "half"}, "no number"),
        ({"macs": 0.0}, r"macs 0 is outside \(0, 1\]"),
        ({"ratio": 0.4, "macs": 0.5}, "ratio and macs are given"),
        ({"score": "l3"}, "there is no score 'l3'"),
        ({"scope": "local"}, "choose one of uniform, global"),
        ({"align": 0}, "align 0"),
        ({"min_channels": 0}, "min_channels 0"),
        ({"seed": -1}, "seed -1"),
        ({"ratios": {"a": 2}}, "ratio 2"),
        ({"ration": 0.5}, "did you mean 'ratio'"),
        ({"skip": "nothing-like-it"}, "matches no node"),
        ({"only": ["conv3"]}, "close names: .*conv"),
        ({"input_shapes": {"z": (1, 2)}}, "z"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_in_words(options, message):
    with pytest.raises(UsageError, match=message):
        plain.prune(convnet(), **options)


def test_a_plan_for_another_model_is_refused_unless_forced():
    result = plain.prune(convnet(seed=0), ratio=0.5)
    with pytest.raises(UsageError, match="made for another file"):
        plain.apply(convnet(seed=1), result.plan)
    assert plain.apply(convnet(seed=1), result.plan, force=True).plan.removed == result.plan.removed


@pytest.mark.parametrize("removed", [{"w9": {0: [1]}}, {"w1": {0: [99]}}, {"w1": {0: [1]}}, {"w1": {7: [1]}}])
def test_a_plan_that_does_not_fit_is_refused(removed):
    model = onnxprune.load(convnet())
    with pytest.raises(UsageError):
        plain.apply(model, Plan(model.sha256, removed))


def test_the_public_names_are_all_there():
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = onnxprune.prun


@pytest.mark.parametrize("path", zoo.trained(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_pruned_model_passes_strict_shape_inference_when_it_is_saved(path, tmp_path):
    result = plain.prune(path, ratio=0.4)
    onnxprune.save(result.model, tmp_path / "out.onnx", source=result.channels.model)
    assert (tmp_path / "out.onnx").stat().st_size < path.stat().st_size


def test_declared_shapes_of_parameters_are_mended_with_them():
    proto = convnet(width=64)
    for name, dims in (("w1", [64, 3, 3, 3]), ("b1", [64]), ("w2", [64, 64, 3, 3])):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    result = plain.prune(proto, ratio=0.5)
    onnx.shape_inference.infer_shapes(result.model.proto, check_type=True, strict_mode=True)
    declared = {v.name: v.type.tensor_type.shape.dim[0].dim_value for v in result.model.proto.graph.value_info}
    assert declared == {"w1": 32, "b1": 32, "w2": 32}


def test_validate_can_be_called_before_and_after_its_package_is_imported():
    result = plain.prune(convnet(), ratio=0.5)
    for _ in range(2):
        comparison = onnxprune.validate(convnet(), result.model, samples=2, threads=1)
        assert set(comparison.parity) == {"logits"}
        importlib.import_module("onnxprune.evidence.compare")


def test_a_target_between_two_widths_is_missed_with_a_warning():
    result = plain.prune(convnet(), params=0.9, align=16)
    assert left(result) != pytest.approx(0.9, rel=0.02)
    assert f"params 0.9 was asked for, {left(result):.3f} is left" in result.warnings[0]
