"""A recipe: what to do with which model, on which data, within which limits, as data."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from onnxprune.errors import UsageError
from onnxprune.recipe import steps
from onnxprune.recipe.reading import Node, Text, shown
from onnxprune.recipe.steps import Step
from onnxprune.validate.gates import Gates


@dataclass(frozen=True)
class Limits(Gates):
    """Quality gates, and the function (`file.py:function`) whose value `max_drop` is about."""

    eval: str | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.eval is None:
            raise UsageError("max_drop needs eval: file.py:function, which measures what may drop.")
        if self.eval is not None and not self.eval.rpartition(":")[0].endswith(".py"):
            raise UsageError(f"eval '{self.eval}': give file.py:function.")


@dataclass(frozen=True)
class Images:
    """How a folder of images becomes inputs, see `onnxprune.statistics.images.ImageOptions`."""

    size: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str | None = None


@dataclass(frozen=True)
class Outputs:
    """What is written where.

    intermediates: a folder for the model after every step.
    keep_last_good: where a gate fails, write the model of the step before.
    """

    output: Path | None = None
    report: Path | None = None
    plan: Path | None = None
    intermediates: Path | None = None
    keep_last_good: bool = False
    no_clobber: bool = False
    no_provenance: bool = False


@dataclass(frozen=True)
class Recipe:
    """A pipeline. Paths are as they are used: those of a recipe file are relative to its folder.

    gates: compared with the original after every step.
    data: .npz, .npy, a folder of those or of images, or `file.py:function`; from Python whatever `read` takes.
    """

    steps: tuple[Step, ...]
    model: Path | None = None
    data: Any = None
    samples: int | None = None
    seed: int = 0
    threads: int = 0
    provider: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    images: Images = Images()
    gates: Limits = Limits()
    outputs: Outputs = Outputs()
    about: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """What is done, as plain data without paths: a recipe of one step is that command."""
        done = [step.settings for step in self.steps]
        return done[0] if len(done) == 1 else {"command": "run", "steps": done}


@dataclass(frozen=True)
class _Written:
    """The parts of a recipe file besides its steps; their order is the order in which a recipe is printed."""

    about: str = ""
    model: str | None = None
    data: str | None = None
    samples: int | None = None
    seed: int = 0
    threads: int = 0
    provider: str | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    images: Images = Images()
    gates: Limits = Limits()
    outputs: Outputs = Outputs()

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("seed", 0), ("threads", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: give a whole number from {least}.")


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe of a file.

    Raises:
        UsageError: it cannot be read, or says something that makes no sense; with the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the recipe '{path}' cannot be read ({reason}).") from error
    return parse_recipe(text, str(path), path.parent)


def parse_recipe(text: str, name: str = "recipe", folder: Path = Path()) -> Recipe:
    """Return the recipe that a YAML or JSON text spells.

    Args:
        name: how complaints call it.
        folder: what its paths are relative to.

    Raises:
        UsageError: it makes no sense; with the line.
    """
    source = Text(text, name)
    pairs = source.pairs(source.root, "the recipe")
    names = [item.name for item in fields(_Written)]
    for key, _ in pairs.values():
        source.known(key, [*names, "steps"], "the recipe")
    if "steps" not in pairs:
        raise UsageError(f"{name}: lacks 'steps', the list of what to do.")
    hints = typing.get_type_hints(_Written)
    values = {word: source.convert(hints[word], pairs[word][1], word) for word in names if word in pairs}
    try:
        parts = _Written(**values)
    except UsageError as error:
        raise source.error(source.root, str(error)) from error
    return Recipe(
        steps=_steps(source, pairs["steps"][1], parts),
        model=folder / parts.model if parts.model else None,
        data=_placed(folder, parts.data),
        gates=replace(parts.gates, eval=_placed(folder, parts.gates.eval)),
        outputs=_outputs(parts.outputs, folder),
        **{name: getattr(parts, name) for name in names if name not in ("model", "data", "gates", "outputs")},
    )


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return plain data as the text of a recipe."""
    text: str = yaml.safe_dump(plain(values), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return text


def _steps(source: Text, node: Node, parts: _Written) -> tuple[Step, ...]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise source.error(node, f"steps is {shown(node)}; give a list: - prune: {{ratio: 0.3}}.")
    return tuple(_step(source, item, parts, number) for number, item in enumerate(node.value, 1))


def _step(source: Text, node: Node, parts: _Written, number: int) -> Step:
    """Read `- name` or `- name: {options}`; what the recipe says for all steps holds unless the step says it itself."""
    if isinstance(node, yaml.ScalarNode):
        key, body = node, None
    else:
        pairs = source.pairs(node, f"step {number}")
        if len(pairs) != 1:
            raise source.error(node, f"step {number} has {len(pairs)} names; give one method, with a dash.")
        ((key, body),) = pairs.values()
    source.known(key, steps.known(), "the list of methods")
    method = steps.known()[key.value]
    what = f"step {number} ({method.name})"
    if body is None or body.tag.endswith(":null"):
        body = yaml.MappingNode("tag:yaml.org,2002:map", [], key.start_mark, key.end_mark)
    mine = source.pairs(body, what)
    limits: dict[str, float] = {}
    if "gates" in mine:
        own = source.build(Gates, mine["gates"][1], f"{what}: gates")
        limits = {item.name: value for item in fields(Gates) if (value := getattr(own, item.name)) is not None}
        if "max_drop" in limits and parts.gates.eval is None:
            raise source.error(mine["gates"][0], f"{what}: max_drop needs gates: eval: file.py:function of the recipe.")
        rest = [pair for pair in body.value if pair[0].value != "gates"]
        body = yaml.MappingNode(body.tag, rest, body.start_mark, body.end_mark)
    names = {item.name for item in fields(method.options)}
    shared = {"seed": parts.seed, "input_shapes": parts.input_shapes}
    given = {name: value for name, value in shared.items() if name in names}
    return Step(method, source.build(method.options, body, what, given), limits)


def _outputs(outputs: Outputs, folder: Path) -> Outputs:
    paths = ("output", "report", "plan", "intermediates")
    values = {name: getattr(outputs, name) for name in paths}
    return replace(outputs, **{name: folder / value for name, value in values.items() if value is not None})


def _placed(folder: Path, path: str | None) -> str | None:
    return None if path is None else str(folder / path)


def plain(value: Any) -> Any:
    """Return the types of YAML and JSON: lists for tuples, text for paths."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return os.fspath(value) if isinstance(value, Path) else value
