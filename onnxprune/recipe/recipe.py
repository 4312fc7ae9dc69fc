"""A recipe is a job as text: YAML or JSON, and the same back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from onnxprune.errors import UsageError
from onnxprune.evidence.limits import GateLimits
from onnxprune.job.gates import Gates, limits_of
from onnxprune.job.job import Job, Step, plain
from onnxprune.job.methods import METHODS
from onnxprune.job.outputs import Outputs
from onnxprune.job.run import Run
from onnxprune.recipe.reading import Node, Text, field_types, shown

KEYS: dict[str, Any] = {
    "about": str,
    "model": str,
    "data": str,
    **field_types(Run),
    "measure_latency": bool,
    "gates": Gates,
    "outputs": Outputs,
}
"""The parts of a recipe besides its steps, with their types; those of `Run` stand among them by their names."""
READY = Path(__file__).parent / "ready"
"""Recipes that come with the package, which a name without a suffix means."""


def read_recipe(path: str | Path) -> Job:
    """Return the recipe of a file, or one that comes with the package (`cnn-cpu-fast`).

    Raises:
        UsageError: it cannot be read, or says something that makes no sense; with the line.
    """
    path = Path(path)
    if path.name == str(path) and not path.suffix and not path.exists():
        path = _ready(path.name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the recipe '{path}' cannot be read ({reason}).") from error
    return parse_recipe(text, str(path), path.parent)


def _ready(name: str) -> Path:
    names = sorted(path.stem for path in READY.glob("*.yaml"))
    if name not in names:
        raise UsageError(f"there is no recipe '{name}', neither a file nor one of {', '.join(names)}.")
    return READY / f"{name}.yaml"


def parse_recipe(text: str, name: str = "recipe", folder: Path = Path()) -> Job:
    """Return the recipe that a YAML or JSON text spells.

    Args:
        name: how complaints call it.
        folder: what its paths are relative to.

    Raises:
        UsageError: it makes no sense; with the line.
    """
    source = Text(text, name)
    pairs = source.pairs(source.root, "the recipe")
    for key, _ in pairs.values():
        source.known(key, [*KEYS, "steps"], "the recipe")
    if "steps" not in pairs:
        raise UsageError(f"{name}: lacks 'steps', the list of what to do.")
    values = {word: source.convert(kind, pairs[word][1], word) for word, kind in KEYS.items() if word in pairs}
    try:
        run = Run(**{item.name: values.pop(item.name) for item in fields(Run) if item.name in values})
    except UsageError as error:
        raise source.blamed(error, pairs, source.root) from error
    gates = values.pop("gates", Gates())
    return Job(
        steps=_steps(source, pairs["steps"][1], gates, folder),
        model=folder / values.pop("model") if values.get("model") else None,
        data=_placed(folder, values.pop("data", None)),
        run=run,
        gates=replace(gates, eval=_placed(folder, gates.eval), judge_data=_placed(folder, gates.judge_data)),
        outputs=_outputs(values.pop("outputs", Outputs()), folder),
        **{name: value for name, value in values.items() if name != "model"},
    )


def to_yaml(values: Mapping[str, object]) -> str:
    """Return plain data as the text of a recipe."""
    text: str = yaml.safe_dump(plain(values), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return text


def _steps(source: Text, node: Node, gates: Gates, folder: Path) -> tuple[Step, ...]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise source.error(node, f"steps is {shown(node)}; give a list: - prune: {{ratio: 0.3}}.")
    return tuple(_step(source, item, gates, folder, number) for number, item in enumerate(node.value, 1))


def _step(source: Text, node: Node, gates: Gates, folder: Path, number: int) -> Step:
    """Read `- name` or `- name: {options}`."""
    if isinstance(node, yaml.ScalarNode):
        key, body = node, None
    else:
        pairs = source.pairs(node, f"step {number}")
        if len(pairs) != 1:
            raise source.error(node, f"step {number} has {len(pairs)} names; give one method, with a dash.")
        ((key, body),) = pairs.values()
    source.known(key, METHODS, "the list of methods")
    method = METHODS[key.value]
    what = f"step {number} ({method.name})"
    if body is None or body.tag.endswith(":null"):
        body = yaml.MappingNode("tag:yaml.org,2002:map", [], key.start_mark, key.end_mark)
    mine = source.pairs(body, what)
    own: dict[str, float] = {}
    if "gates" in mine:
        own = limits_of(source.build(GateLimits, mine["gates"][1], f"{what}: gates"))
        if "max_drop" in own and gates.eval is None:
            raise source.error(mine["gates"][0], f"{what}: max_drop needs gates: eval: file.py:function of the recipe.")
        rest = [pair for pair in body.value if pair[0].value != "gates"]
        body = yaml.MappingNode(body.tag, rest, body.start_mark, body.end_mark)
    options = source.build(method.options, body, what)
    paths = {item.name: getattr(options, item.name) for item in fields(options)}
    placed = {name: folder / value for name, value in paths.items() if isinstance(value, Path)}
    return Step(method, replace(options, **placed), own)


def _outputs(outputs: Outputs, folder: Path) -> Outputs:
    placed: dict[str, Any] = {name: folder / value for name, value in vars(outputs).items() if isinstance(value, Path)}
    return replace(outputs, **placed)


def _placed(folder: Path, path: str | Path | None) -> str | None:
    return None if path is None else str(folder / path)
