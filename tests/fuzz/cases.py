"""A damaged input and the command that gets it, drawn from a number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import yaml

from tests import networks
from tests.fuzz import damage

FEED = {"x": np.random.default_rng(0).standard_normal((8, 3, 12, 12)).astype(np.float32)}
RECIPE = {
    "model": "base.onnx",
    "data": "data.npz",
    "samples": 8,
    "seed": 0,
    "threads": 1,
    "input_shapes": {"x": [1, 3, 12, 12]},
    "gates": {"min_cosine": -1.0},
    "outputs": {"output": "out.onnx", "plan": "plan-out.json", "report": "report.json"},
    "steps": [{"prune": {"ratio": 0.5, "align": 1, "compensate": "none"}}, {"sparsify": {"sparsity": 0.5}}],
}
ON_MODELS = (
    "inspect {model}",
    "prune {model} --ratio 0.5 --align 1 --compensate none",
    "prune {model} --ratio 0.3 --align 1 --compensate none --no-verify",
    "prune {model} --macs 0.6 --align 1 --compensate lstsq --data {data}",
    "sparsify {model} --sparsity 0.5",
    "factorize {model} --params 0.7",
    "quantize {model} --mode dynamic",
    "quantize {model} --mode static --data {data}",
    "quantize {model} --mode weight-only",
    "quantize {model} --mode fp16",
    "validate {model} {base}",
    "validate {base} {model}",
    "apply {model} {plan} --force --compensate none",
    "run {recipe} --model {model}",
)
ON_PLANS = ("apply {base} {plan} --compensate none", "apply {base} {plan} --force --compensate none --no-verify")
ON_RECIPES = ("run {recipe}", "run {recipe} --no-verify", "run {recipe} --model {base}")
ON_DATA = (
    "prune {base} --ratio 0.5 --compensate bias --data {data}",
    "quantize {base} --mode static --data {data}",
    "validate {base} {base} --data {data}",
    "prune {base} --ratio 0.5 --score wanda --compensate none --data {data}",
)


@dataclass(frozen=True)
class Case:
    """What is run in a folder."""

    number: int
    kind: str
    arguments: tuple[str, ...]


def prepare(folder: Path) -> None:
    """Write the sound files that damaged ones are made of."""
    networks.store(networks.convnet(width=16), folder / "base.onnx")
    np.savez(folder / "data.npz", **FEED)
    from onnxprune import prune

    (folder / "plan.json").write_text(prune(folder / "base.onnx", ratio=0.5, align=1).plan.to_json())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))


def draw(number: int, seed: int, folder: Path, models: list[onnx.ModelProto]) -> Case:
    """Write the damaged input of a number and return the command that gets it."""
    import json

    rng = np.random.default_rng([seed, number])
    names = {
        "base": "base.onnx",
        "model": "base.onnx",
        "data": "data.npz",
        "plan": "plan.json",
        "recipe": "recipe.yaml",
    }
    kind = str(rng.choice(["model", "plan", "recipe", "data"], p=[0.55, 0.15, 0.15, 0.15]))
    if kind == "model":
        names["model"] = "damaged.onnx"
        (folder / "damaged.onnx").write_bytes(damage.model(models[int(rng.integers(len(models)))], rng))
        commands = ON_MODELS
    elif kind == "plan":
        names["plan"] = "damaged.json"
        plan = json.loads((folder / "plan.json").read_text())
        content = damage.dumped(damage.document(plan, rng))
        (folder / "damaged.json").write_bytes(content.encode() if rng.random() < 0.8 else damage.text(content, rng))
        commands = ON_PLANS
    elif kind == "recipe":
        names["recipe"] = "damaged.yaml"
        content = damage.dumped(damage.document(RECIPE, rng))
        (folder / "damaged.yaml").write_bytes(content.encode() if rng.random() < 0.8 else damage.text(content, rng))
        commands = ON_RECIPES
    else:
        names["data"] = "damaged.npz"
        (folder / "damaged.npz").write_bytes(damage.arrays(FEED, rng))
        commands = ON_DATA
    command = commands[int(rng.integers(len(commands)))]
    words = command.format(**{name: str(folder / file) for name, file in names.items()}).split()
    if words[0] in ("prune", "sparsify", "factorize", "quantize", "apply", "run"):
        words += ["-o", str(folder / "out.onnx")]
    return Case(number, kind, tuple(words))
