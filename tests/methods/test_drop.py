"""Dropping residual branches: equal to the original with their results times zero, whatever else is pruned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import Plan, Run
from onnxprune.errors import OnnxpruneError, UsageError
from onnxprune.evidence.dropped import masked_original
from onnxprune.graph.model import Model
from tests import plain
from tests.methods import residual
from tests.oracle import parity, random_inputs, relative_error, run, zeroed

NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], list[str]]] = {
    "convnet": (residual.convnet, ["first", "scaled"]),
    "constants": (lambda: residual.convnet(weights="constant"), ["first"]),
    "transformer": (residual.transformer, ["attention0", "feed1"]),
    "old transformer": (lambda: residual.transformer(13), ["attention0", "attention1"]),
    "norms": (residual.fused, ["norm0", "norm2"]),
    "norms, old": (lambda: residual.fused(13), ["norm1"]),
    "norms, sums": (lambda: residual.fused(sums=True), ["norm0", "norm1"]),
    "norms, no bias": (lambda: residual.fused(bias=False), ["norm2"]),
    "simplified": (lambda: residual.fused(simplified=True), ["norm0"]),
    "simplified, sums": (lambda: residual.fused(simplified=True, sums=True), ["norm1", "norm2"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_dropped_branch_gives_zero_and_nothing_else_changes(name: str) -> None:
    build, drop = NETWORKS[name]
    original = build()
    chosen = [branch for branch in residual.branches_of(original) if branch.name in drop]
    assert [branch.name for branch in chosen] == drop
    result = plain.prune(original, drop=drop)
    assert result.keep == {}
    assert result.plan.removed == {}
    assert len(result.model.proto.graph.node) < len(original.graph.node)
    onnx.checker.check_model(result.model.proto)
    assert parity(residual.silenced(original, chosen), result.model.proto, {}) < 1e-5  # rounding in another order
    assert (
        relative_error(
            *(run(p, random_inputs(original, np.random.default_rng(0)))[0] for p in (original, result.model.proto))
        )
        > 1e-2
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_that_go_besides_are_zeroed_in_what_is_left(name: str) -> None:
    build, drop = NETWORKS[name]
    original = build()
    chosen = [branch for branch in residual.branches_of(original) if branch.name in drop]
    result = plain.prune(original, drop=drop, ratio=0.5, align=1, exact_only=True)
    assert result.keep
    assert parity(residual.silenced(original, chosen), result.model.proto, result.plan.removed) < 1e-5
    full = plain.prune(original, drop=drop, ratio=0.5, align=1)
    assert result.short is not None
    feeds = random_inputs(original, np.random.default_rng(1))
    masked = masked_original(full.channels, full.keep, full.short).proto
    assert relative_error(run(masked, feeds)[0], run(full.model.proto, feeds)[0]) < 1e-5


def test_the_masked_original_of_the_package_equals_that_of_the_tests() -> None:
    original = residual.convnet()
    chosen = [branch for branch in residual.branches_of(original) if branch.name == "first"]
    result = plain.prune(original, drop=["first"], ratio=0.5, align=1)
    ours = masked_original(result.channels, result.keep, result.short).proto
    feeds = random_inputs(original, np.random.default_rng(2))
    theirs = zeroed(residual.silenced(original, chosen), result.plan.removed)
    assert relative_error(run(theirs, feeds)[0], run(ours, feeds)[0]) < 1e-6


def test_a_wrong_result_is_found_by_the_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.methods import pruning as method

    def wrong(channels: object, keep: object) -> Model:
        given = right(channels, keep)  # type: ignore[arg-type]
        model = dataclasses.replace(given, proto=onnx.ModelProto.FromString(given.proto.SerializeToString()))
        for tensor in model.proto.graph.initializer:
            if tensor.dims and len(tensor.dims) == 4:
                tensor.raw_data = (1.01 * np.frombuffer(tensor.raw_data, np.float32)).astype(np.float32).tobytes()
                break
        return model

    right = method.rewrite
    monkeypatch.setattr(method, "rewrite", wrong)
    with pytest.raises(OnnxpruneError, match="differs from the original"):
        onnxprune.prune(residual.convnet(), drop=["first"], compensate="none", run=Run(verify=True))


def test_a_plan_with_branches_survives_json_and_gives_the_same_bytes() -> None:
    original = residual.transformer()
    result = plain.prune(original, drop=["attention1"], ratio=0.5, align=1)
    text = result.plan.to_json()
    again = plain.apply(original, Plan.from_json(text))
    assert Plan.from_json(text).dropped == ["attention1"]
    assert again.model.proto.SerializeToString(deterministic=True) == result.model.proto.SerializeToString(
        deterministic=True
    )
    assert '"dropped"' not in plain.prune(original, ratio=0.5).plan.to_json()


def test_the_refit_aims_at_the_whole_original() -> None:
    original = residual.convnet()
    rng = np.random.default_rng(3)
    data = {"x": rng.normal(size=(48, 3, 8, 8)).astype(np.float32)}
    fresh = {"x": rng.normal(size=(32, 3, 8, 8)).astype(np.float32)}
    expected = run(original, fresh)[0]
    errors = []
    for mode in ("none", "lstsq"):
        result = plain.prune(original, data, drop=["first"], compensate=mode)
        errors.append(float(np.square(run(result.model.proto, fresh)[0] - expected).mean()))
    assert errors[1] < 0.2 * errors[0]


def test_caches_of_a_dropped_attention_go_with_it() -> None:
    original = residual.decoder()
    result = onnxprune.prune(original, drop=["attention0"], compensate="none", run=Run(verify=True))
    gone = {f"{way}.0.{kind}" for way in ("past_key_values", "present") for kind in ("key", "value")}
    left = {value.name for value in (*result.model.proto.graph.input, *result.model.proto.graph.output)}
    assert not left & gone
    assert {"past_key_values.1.key", "present.1.value"} <= left
    assert set(result.report.details["dropped"]["inputs"] + result.report.details["dropped"]["outputs"]) == gone
    assert result.report.details["masked_parity"]["relative_error"]
    assert any("past_key_values.0.key" in warning for warning in result.warnings)
    chosen = [branch for branch in residual.branches_of(original) if branch.name == "attention0"]
    feeds = random_inputs(original, np.random.default_rng(0))
    reference = residual.silenced(original, chosen)
    kept = {name: array for name, array in feeds.items() if name not in gone}
    for a, b in zip(run(reference, feeds), run(result.model.proto, kept), strict=True):
        assert relative_error(a, b) < 1e-5


def test_caches_that_went_with_data_and_a_refit() -> None:
    original = residual.decoder()
    rng = np.random.default_rng(0)
    data = [random_inputs(original, rng, 4) for _ in range(8)]
    result = onnxprune.prune(original, data, drop=["attention1"], ratio=0.25, align=1)
    assert result.compensation is not None
    assert result.report.parity


def test_a_target_counts_what_the_branches_save() -> None:
    original = residual.convnet()
    alone = onnxprune.prune(original, drop=["scaled"], compensate="none", run=Run(verify=False)).report
    assert alone.input.macs == onnxprune.prune(original, ratio=0, run=Run(verify=False)).report.input.macs
    share = alone.output.macs / alone.input.macs
    assert share < 0.8
    both = onnxprune.prune(original, drop=["scaled"], macs=0.5 * share, align=1, compensate="none").report
    assert both.output.macs / both.input.macs == pytest.approx(0.5 * share, rel=0.03)
    enough = onnxprune.prune(original, drop=["scaled"], macs=0.95, compensate="none")
    assert enough.keep == {}


def test_weights_that_two_branches_share_stay_for_the_other() -> None:
    original = residual.convnet()
    names = {tensor.name for tensor in original.graph.initializer}
    first, wider = [node for node in original.graph.node if node.op_type == "Conv"][1:3:1]
    first.input[1], first.input[2] = wider.input[1], wider.input[2]
    result = plain.prune(original, drop=["first"])
    left = {tensor.name for tensor in result.model.proto.graph.initializer}
    assert left < names


def test_what_nothing_needed_before_stays() -> None:
    original = residual.convnet()
    original.graph.input.append(onnx.helper.make_tensor_value_info("unused", 1, [1]))
    original.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "spare"))
    proto = plain.prune(original, drop=["first"]).model.proto
    assert [value.name for value in proto.graph.input] == ["x", "unused"]
    assert "spare" in {tensor.name for tensor in proto.graph.initializer}


@pytest.mark.parametrize(
    ("drop", "match"),
    [
        (["frist"], "did you mean 'first'"),
        (["nothing like it at all"], "see inspect"),
        (["wider"], "no branch 'wider'"),
    ],
)
def test_a_name_that_is_no_branch_is_one_line(drop: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        plain.prune(residual.convnet(), drop=drop)


def test_a_branch_that_makes_an_output_cannot_go() -> None:
    original = residual.convnet()
    inner = next(node for node in original.graph.node if node.op_type == "Conv").output[0]
    inside = [node for node in original.graph.node if node.op_type == "Conv"][1].output[0]
    assert inner != inside
    original.graph.output.append(onnx.helper.make_tensor_value_info(inside, 1, None))
    with pytest.raises(UsageError, match="an output of the model is made in it"):
        plain.prune(original, drop=["first"])


def test_the_command_line_a_recipe_and_python_do_the_same(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from onnxprune.cli.group import cli

    model, recipe = tmp_path / "net.onnx", tmp_path / "recipe.yaml"
    onnx.save(residual.transformer(), model)
    recipe.write_text("steps:\n  - prune: {drop: [feed0, attention1], compensate: none}\n")
    words = [str(model), "--drop", "feed0", "--drop", "attention1", "--compensate", "none"]
    files = [tmp_path / name for name in ("one.onnx", "two.onnx", "three.onnx")]
    plan = tmp_path / "plan.json"
    done = CliRunner().invoke(cli, ["prune", *words, "-o", str(files[0]), "--plan", str(plan)])
    assert done.exit_code == 0, done.output
    assert "Dropped 2 branches" in done.output
    done = CliRunner().invoke(cli, ["run", str(recipe), "--model", str(model), "-o", str(files[1])])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(cli, ["apply", str(model), str(plan), "-o", str(files[2])])
    assert done.exit_code == 0, done.output
    graphs = [onnx.load(file).graph.SerializeToString(deterministic=True) for file in files]
    ours = onnxprune.prune(model, drop=["feed0", "attention1"], compensate="none").model.proto.graph
    assert graphs == [ours.SerializeToString(deterministic=True)] * 3


def test_inspect_lists_branches_and_why_some_stay(tmp_path: Path) -> None:
    import json

    from click.testing import CliRunner

    from onnxprune.cli.group import cli

    proto = residual.convnet()
    proto.graph.output.append(onnx.helper.make_tensor_value_info(proto.graph.node[2].output[0], 1, None))
    onnx.save(proto, tmp_path / "net.onnx")
    done = CliRunner().invoke(cli, ["inspect", str(tmp_path / "net.onnx"), "--json"])
    branches = {line["name"]: line for line in json.loads(done.stdout)["branches"]}
    assert set(branches) == {"first", "scaled"}
    assert branches["first"]["reason"] == "an output of the model is made in it"
    assert branches["scaled"]["droppable"]
    assert branches["scaled"]["macs"] == 2 * 64 * 24 * 24 * 9
    assert branches["scaled"]["params"] == 2 * (24 * 24 * 9 + 24) + 24
    assert 0 < branches["scaled"]["time_share"] < 1
