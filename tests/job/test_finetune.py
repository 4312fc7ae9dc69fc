"""finetune: nearer than before, zeros stay, what is left is found, labels and own losses count, bad input."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from tests import networks
from tests.cli.conftest import Run

DRAW = np.random.default_rng(3)
X = DRAW.standard_normal((96, 3, 12, 12)).astype(np.float32)
FRESH = DRAW.standard_normal((64, 3, 12, 12)).astype(np.float32)
NET = networks.convnet(width=16)


def outputs(proto: onnx.ModelProto, x: np.ndarray = FRESH) -> np.ndarray:
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def far(proto: onnx.ModelProto, other: onnx.ModelProto = NET) -> float:
    return float(np.square(outputs(proto) - outputs(other)).mean())


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.fixture(scope="module")
def pruned() -> onnx.ModelProto:
    return onnxprune.prune(NET, ratio=0.5, compensate="none").model.proto


COMPRESSED: dict[str, Any] = {
    "pruned": lambda: onnxprune.prune(NET, ratio=0.5, compensate="none").model.proto,
    "sparse": lambda: onnxprune.sparsify(NET, pattern="2:4").model.proto,
    "factorized": lambda: onnxprune.factorize(NET, params=0.6).model.proto,
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_model_comes_nearer_on_samples_it_has_not_seen(kind: str) -> None:
    compressed = COMPRESSED[kind]()
    found = onnxprune.finetune(NET, compressed, {"x": X}, steps=40, rate=0.03)
    assert found.after < found.before and found.best_step > 0
    assert far(found.model.proto) < 0.9 * far(compressed)
    old, new = stored(compressed), stored(found.model.proto)
    assert {name: array.shape for name, array in old.items()} == {name: array.shape for name, array in new.items()}
    if kind == "sparse":
        assert found.zeros > 0
        for name, array in old.items():
            assert not new[name][array == 0].any() or array.ndim == 1, name


def test_classes_that_were_trimmed_are_found_by_their_values() -> None:
    trimmed = onnxprune.trim(NET, keep={"logits": "1,4-6,9"}).model.proto
    damaged = onnx.ModelProto()
    damaged.CopyFrom(trimmed)
    for tensor in damaged.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.8), "w2"))
    found = onnxprune.finetune(NET, damaged, {"x": X}, steps=40, rate=0.03)
    assert far(found.model.proto, trimmed) < 0.5 * far(damaged, trimmed)


def test_what_brings_nothing_leaves_the_model_as_it_was(pruned: onnx.ModelProto) -> None:
    found = onnxprune.finetune(NET, pruned, {"x": X}, steps=3, rate=1e5)
    assert found.best_step == 0 and found.after == found.before
    assert found.model.proto.graph == pruned.graph


def test_labels_pull_beside_the_original(pruned: onnx.ModelProto) -> None:
    labels = DRAW.integers(10, size=96)

    def loss(proto: onnx.ModelProto) -> float:
        given = outputs(proto, X)
        given = given - given.max(1, keepdims=True)
        return float(-(given - np.log(np.exp(given).sum(1, keepdims=True)))[np.arange(96), labels].mean())

    plain = onnxprune.finetune(NET, pruned, {"x": X}, steps=40, rate=0.03)
    pulled = onnxprune.finetune(NET, pruned, {"x": X}, steps=40, rate=0.03, labels=labels, label_weight=30.0)
    assert pulled.criterion == "cross-entropy" and loss(pulled.model.proto) < loss(plain.model.proto) - 0.1


@pytest.mark.parametrize("criterion", ["mse", "bce"])
def test_labels_of_every_output_count(pruned: onnx.ModelProto, criterion: str) -> None:
    labels = (X[:, 0, :5, :2].reshape(96, 10) > 0).astype(np.float64)
    found = onnxprune.finetune(NET, pruned, {"x": X}, steps=20, labels=labels, criterion=criterion, label_weight=5.0)
    assert found.after < found.before and found.criterion == criterion


def own_loss(output: str = "logits", shape: tuple[int, ...] = (1,)) -> onnx.ModelProto:
    """mean |labels - logits|."""
    nodes = [
        helper.make_node("Sub", [output, "labels"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["m"], keepdims=0),
        helper.make_node("Reshape", ["m", "s"], ["loss"])
        if len(shape)
        else helper.make_node("Identity", ["m"], ["loss"]),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 10]) for name in (output, "labels")]
    result = helper.make_tensor_value_info("loss", TensorProto.FLOAT, list(shape))
    return networks.model(nodes, inputs, [result], [numpy_helper.from_array(np.array(shape, np.int64), "s")])


def test_a_loss_of_ones_own_counts(pruned: onnx.ModelProto) -> None:
    labels = np.full((96, 10), 2, np.float32)
    found = onnxprune.finetune(NET, pruned, {"x": X}, steps=40, rate=0.03, labels=labels, loss=own_loss())
    assert np.abs(outputs(found.model.proto) - 2).mean() < np.abs(outputs(pruned) - 2).mean() - 0.1


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another count": ({"labels": np.zeros(95, int)}, "95 labels and 96 samples"),
    "another shape": ({"labels": np.zeros((96, 7))}, r"a label has shape \[7\], output 'logits' wants \[10\]"),
    "outside the classes": ({"labels": np.full(96, 10)}, "label 10 of sample 0 is outside the 10 classes"),
    "no shares": ({"labels": np.full((96, 10), 2.0), "criterion": "bce"}, "shares from 0 to 1"),
    "another input of the loss": ({"loss": own_loss("scores")}, "the loss graph reads 'scores'"),
    "labels that are not there": ({"loss": own_loss()}, "the loss graph reads 'labels'"),
    "no single number": (
        {"loss": own_loss(shape=(1, 1, 2)), "labels": np.zeros((96, 10), np.float32)},
        "a single number",
    ),
    "quick": ({"effort": "quick"}, "takes no gradient steps"),
    "an unknown variation": ({"augment": "turn"}, "augment 'turn'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(pruned: onnx.ModelProto, name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises((onnxprune.UsageError, onnxprune.DataError), match=message) as caught:
        onnxprune.finetune(NET, pruned, {"x": X}, steps=2, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [3, 4])
def test_samples_are_mixed_with_their_labels_where_steps_are_many(
    pruned: onnx.ModelProto, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.methods.finetune.MANY", 4)
    found = onnxprune.finetune(NET, pruned, {"x": X}, steps=steps, labels=np.arange(96) % 10)
    assert ("mix" in found.kinds) == (steps == 4) and np.isfinite(found.after)
    assert "mix" in onnxprune.finetune(NET, pruned, {"x": X}, steps=3, augment="mix").kinds


def test_samples_that_cannot_be_mixed_are_not(pruned: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.methods.finetune.MANY", 1)
    own = {"loss": own_loss(), "labels": np.zeros((96, 10), np.float32)}
    assert "mix" not in onnxprune.finetune(NET, pruned, {"x": X}, steps=2, **own).kinds
    with pytest.raises(onnxprune.UsageError, match="augment mix: samples cannot be mixed") as caught:
        onnxprune.finetune(NET, pruned, {"x": X}, steps=2, augment="flip,mix", **own)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [40, 60, 80])
def test_a_wrong_label_is_named_by_its_place_among_those_given(pruned: onnx.ModelProto, first: int) -> None:
    labels = np.where(np.arange(96) < first, 3, 99)
    with pytest.raises(onnxprune.DataError, match="label 99 of sample") as caught:
        onnxprune.finetune(NET, pruned, {"x": X}, steps=2, labels=labels)
    assert first <= int(str(caught.value).split("sample ")[1].split()[0]) <= first + 4


def test_models_that_do_not_correspond_are_refused_with_the_tensor() -> None:
    other = networks.convnet(seed=9, width=16)
    other.graph.node[-1].output[0] = other.graph.output[0].name = "scores"
    with pytest.raises(onnxprune.UsageError, match="no output 'scores'"):
        onnxprune.finetune(NET, other, {"x": X}, steps=2)
    grey = onnxprune.trim(NET, gray=("x",)).model
    with pytest.raises(onnxprune.UsageError, match="its input is 'x'"):
        onnxprune.finetune(NET, grey, {"x": X}, steps=2)


def test_integers_that_steps_cannot_follow_are_refused_in_one_line() -> None:
    dynamic = onnxprune.quantize(networks.convnet(width=48), mode="dynamic").model.proto
    with pytest.raises(onnxprune.UsageError, match="computes with integers in") as caught:
        onnxprune.finetune(networks.convnet(width=48), dynamic, {"x": X}, steps=2)
    assert "\n" not in str(caught.value)
    half = onnxprune.quantize(NET, mode="fp16").model.proto
    with pytest.raises(onnxprune.UsageError, match="float16 weights"):
        onnxprune.finetune(NET, half, {"x": X}, steps=2)


def test_the_command_the_recipe_and_the_function_give_the_same_bytes(
    run: Run, tmp_path: Path, pruned: onnx.ModelProto
) -> None:
    np.savez(tmp_path / "data.npz", x=X)
    np.savetxt(tmp_path / "y.csv", np.arange(96) % 10, fmt="%d")
    model = networks.store(NET, tmp_path / "net.onnx")
    small = networks.store(pruned, tmp_path / "small.onnx")
    words = ["--steps", 5, "--labels", tmp_path / "y.csv", "--data", tmp_path / "data.npz", "--threads", 1]
    result = run("finetune", model, small, *words)
    assert result.exit_code == 0, result.stderr
    assert "held-out distance" in result.stdout and (tmp_path / "small-finetuned.onnx").exists()
    recipe = run("finetune", model, small, *words, "-o", tmp_path / "again.onnx", "--print-recipe")
    (tmp_path / "job.yaml").write_text(recipe.stdout)
    assert run("run", tmp_path / "job.yaml").exit_code == 0
    called = onnxprune.finetune(
        model, small, tmp_path / "data.npz", steps=5, labels=tmp_path / "y.csv", run=onnxprune.Run(threads=1)
    )
    wanted = stored(onnx.load(tmp_path / "small-finetuned.onnx"))
    for other in (onnx.load(tmp_path / "again.onnx"), called.model.proto):
        for name, array in stored(other).items():
            np.testing.assert_array_equal(array, wanted[name])
    assert any((wanted[name] != array).any() for name, array in stored(pruned).items())


def test_a_recipe_finetunes_what_the_step_before_made(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X)
    networks.store(NET, tmp_path / "net.onnx")
    steps = "steps: [sparsify: {pattern: '2:4'}, finetune: {steps: 5}]"
    (tmp_path / "job.yaml").write_text(f"model: net.onnx\ndata: data.npz\n{steps}\n")
    result = run("run", tmp_path / "job.yaml", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.stderr
    assert (stored(onnx.load(tmp_path / "out.onnx"))["w2"] == 0).mean() >= 0.49


def test_a_state_goes_on_and_goes_when_the_output_is_there(
    run: Run, tmp_path: Path, pruned: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.compensate.long_walk.WRITTEN", 0.0)
    monkeypatch.setattr("onnxprune.compensate.long_walk.COST", 0.0)
    np.savez(tmp_path / "data.npz", x=X)
    model = networks.store(NET, tmp_path / "net.onnx")
    small, state = networks.store(pruned, tmp_path / "small.onnx"), tmp_path / "run.state"
    whole = onnxprune.finetune(model, small, tmp_path / "data.npz", steps=12)

    def stop(text: str) -> None:
        if "step 8 " in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onnxprune.finetune(model, small, tmp_path / "data.npz", steps=12, state=state, progress=stop)
    assert state.exists()
    with pytest.raises(onnxprune.UsageError, match="another run"):
        onnxprune.finetune(model, small, tmp_path / "data.npz", steps=13, state=state)
    words = ["--steps", 12, "--state", state, "--data", tmp_path / "data.npz", "-o", tmp_path / "out.onnx"]
    result = run("finetune", model, small, *words)
    assert result.exit_code == 0, result.stderr
    assert not state.exists()
    for name, array in stored(onnx.load(tmp_path / "out.onnx")).items():
        np.testing.assert_array_equal(array, stored(whole.model.proto)[name])
