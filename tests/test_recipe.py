"""Recipes: what they say is checked with the place, and what they do is what the commands do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import Job, Run, run_recipe, step
from onnxprune.errors import GateError, UsageError
from onnxprune.job.methods import METHODS
from onnxprune.recipe import parse_recipe, read_recipe, to_yaml
from tests import networks

ROOT = Path(__file__).parent.parent
READY = {
    "cnn-cpu-fast": "fm_resnet20",
    "transformer-int8": "fm_vit",
    "smallest-file": "fm_rnn",
    "edge-int8": "fm_resnet20",
}


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    with np.load(ROOT / "models/data/fmnist_calib.npz") as data:
        return {name: data[name][:64] for name in data.files if not name.startswith("_")}


def test_a_recipe_is_read_into_checked_options() -> None:
    recipe = parse_recipe(
        """
        model: nets/m.onnx
        data: judge.py:feeds
        seed: 3
        input_shapes: {x: [1, 3, 8, 8]}
        steps:
          - prune: {macs: 5e-1, skip: head*, align: 4}
          - quantize:
              mode: static
              gates: {min_sqnr: 20}
        gates: {min_cosine: 0.9}
        outputs: {output: out.onnx, keep_last_good: yes}
        """,
        folder=Path("/there"),
    )
    assert recipe.model == Path("/there/nets/m.onnx") and recipe.data == "/there/judge.py:feeds"
    first, second = recipe.steps
    assert first.options.macs == 0.5 and first.options.skip == ("head*",) and first.options.seed == 3
    assert first.options.input_shapes == {"x": (1, 3, 8, 8)} and second.options.mode == "static"
    assert second.limits == {"min_sqnr": 20.0} and recipe.gates.min_cosine == 0.9
    assert recipe.outputs.output == Path("/there/out.onnx") and recipe.outputs.keep_last_good is True


def test_json_is_a_recipe_too() -> None:
    recipe = parse_recipe('{\n\t"model": "m.onnx",\n\t"steps": [{"prune": {"ratio": 2e-1}}]\n}')
    assert recipe.steps[0].options.ratio == 0.2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("steps:\n  - prune:\n      ratoi: 0.3\n", 3, "did you mean 'ratio'"),
        ("steps:\n  - prun: {}\n", 2, "did you mean 'prune'"),
        ("modle: x.onnx\nsteps: [prune]\n", 1, "did you mean 'model'"),
        ("steps:\n  - prune:\n      align: 8\n      ratio: lots\n", 4, "give a number"),
        ("steps:\n  - prune:\n      align: 8\n      ratio: 1.5\n", 4, "outside [0, 1)"),
        ("steps:\n  - prune: {align: 8.5}\n", 2, "give a whole number"),
        ("steps:\n  - prune: {exact_only: 1}\n", 2, "give true or false"),
        ("steps:\n  - quantize: {mode: int8}\n", 2, "choose one of"),
        ("steps:\n  - prune: {ratio: 0.1, ratio: 0.2}\n", 2, "twice"),
        ("steps:\n  - prune: {}\n    quantize: {}\n", 2, "2 names"),
        ("steps: prune\n", 1, "give a list"),
        ("steps: [prune]\ngates: {min_cosin: 1}\n", 2, "did you mean 'min_cosine'"),
        ("steps: [prune]\ngates: {max_drop: 0.1}\n", 2, "max_drop needs eval"),
        ("steps: [prune]\noutputs:\n  output: [a]\n", 3, "give a path"),
        ("steps: [prune\nmodel: x\n", 2, "not readable"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "r.yaml")
    assert str(caught.value).startswith(f"r.yaml:{line}: ") and words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "steps: [prune]\nmodel: !!python/object/apply:os.system ['touch executed']\n",
        "steps: [prune]\ndata: !!python/name:os.system\n",
        "steps: [prune]\nabout: &a x\nmodel: *a\n",
        "steps: " + "[" * 5000,
        "about: " + "x" * 2_000_000,
        "",
    ],
)
def test_what_is_not_plain_data_is_refused_and_never_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        parse_recipe(text)
    assert not list(tmp_path.iterdir())


def test_every_method_is_a_step_and_its_options_survive_writing_and_reading() -> None:
    assert {"factorize", "prune", "quantize", "sparsify"} <= set(METHODS)
    made = step("prune", macs=0.5, skip=("a*", "b"), ratios={}, input_shapes={"x": (1, 2)})
    text = to_yaml({"steps": [{"prune": made.options.to_dict()}]})
    assert parse_recipe(text).steps == (made,)


def test_steps_from_python_are_those_of_the_methods(samples: dict[str, np.ndarray]) -> None:
    path = ROOT / "models/trained/fm_rnn/model.onnx"
    result = run_recipe(Job((step("prune", ratio=0.3),), run=Run(threads=1)), path, samples)
    alone = onnxprune.prune(path, samples, ratio=0.3)
    assert result.model.proto == alone.model.proto and result.plan is not None


def test_a_gate_stops_the_recipe_and_hands_over_the_last_good_model() -> None:
    model = onnxprune.load(networks.convnet())
    recipe = Job((step("prune", ratio=0.0), step("prune", limits={"min_sqnr": 250.0}, ratio=0.5)), run=Run(threads=1))
    with pytest.raises(GateError, match=r"step 2 \(prune\).*SQNR") as caught:
        run_recipe(recipe, model)
    assert caught.value.last_good.proto.graph == model.proto.graph  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_a_ready_recipe_makes_a_trained_network_much_smaller(name: str, samples: dict[str, np.ndarray]) -> None:
    model = ROOT / "models/trained" / READY[name] / "model.onnx"
    recipe = read_recipe(ROOT / "recipes" / f"{name}.yaml")
    result = run_recipe(replace(recipe, run=Run(threads=1, samples=24)), model, samples)
    assert result.model.proto.ByteSize() < 0.5 * model.stat().st_size
    onnx.checker.check_model(result.model.proto)
    assert all(item.comparison is not None for item in result.steps)


def test_a_ready_recipe_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_recipe("edge-int8") == read_recipe(ROOT / "recipes/edge-int8.yaml")
    with pytest.raises(UsageError, match=r"there is no recipe 'edge-int9'.*cnn-cpu-fast, edge-int8"):
        read_recipe("edge-int9")
    Path("edge-int8").write_text("steps: [sparsify]")
    assert [item.method.name for item in read_recipe("edge-int8").steps] == ["sparsify"], "files come first"
