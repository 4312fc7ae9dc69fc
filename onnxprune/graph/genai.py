"""`genai_config.json`: what onnxruntime-genai reads to feed a decoder its cache; its counts follow from the model's.

Its decoder has one number for all layers: heads of keys and values, their size, layers. Where inputs and outputs of the
model shrink or go, these numbers must follow, or the caller allocates caches that the model does not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.graph.model import Model
from onnxprune.graph.trace import Shape, trace
from onnxprune.graph.view import View

NAMES = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
"""Names of caches where the configuration gives none; %d is the layer."""
TOGETHER = "past_names"
"""Names of caches that hold keys and values in one tensor."""
KEYS, QUERIES = "num_key_value_heads", "num_attention_heads"
HEADS = ("num_heads", "q_num_heads")
"""Attributes of attention that count the heads of the queries."""


@dataclass(frozen=True, eq=False)
class Rewritten:
    """config: with the new counts, None where none changed or no file can say them.

    changed: key -> (old, new). notes: what is to be said of it.
    """

    config: dict[str, Any] | None = None
    changed: Mapping[str, tuple[Any, Any]] | None = None
    notes: tuple[str, ...] = ()


def with_counts(config: Mapping[str, object], file: str, before: Model, after: Model, output: str) -> Rewritten:
    """Return the configuration of a model as it fits another one that was made of it.

    Args:
        file: name of the file of `before`, by which its part of the configuration is found.
        output: name of the file of `after`.
    """
    model = config.get("model")
    parts = [name for name, part in model.items() if _is_of(part, file)] if isinstance(model, Mapping) else []
    if not isinstance(model, Mapping) or not parts:
        return Rewritten()
    old, new = _Counts(before), _Counts(after)
    result: dict[str, Any] = {**model}
    changed: dict[str, tuple[Any, Any]] = {}
    for name in parts:
        part = model[name]
        counts = [counted.of(part) for counted in (old, new)]
        several = [key for key, found in counts[1].items() if len(found) > 1 and counts[0].get(key) != found]
        if several:
            key = several[0]
            sizes = " and ".join(str(size) for size in sorted(counts[1][key]))
            return Rewritten(notes=(f"its {key} is one number for all layers, and they have {sizes} now",))
        fresh = _fresh(part, *counts)
        changed |= {f"{name}.{key}": pair for key, pair in fresh.items()}
        result[name] = _named({**part, **{key: new for key, (_, new) in fresh.items()}}, file, output)
        scores = [counted.scores(part) for counted in (old, new)]
        if None not in scores and scores[0] != scores[1]:
            changed["vocab_size"] = (model.get("vocab_size", scores[0]), scores[1])
            result["vocab_size"] = scores[1]
    if not changed:
        return Rewritten()
    gaps = [note for name in parts for note in new.gaps(model[name])]
    return Rewritten({**config, "model": result}, changed, tuple(gaps))


def _fresh(
    part: Mapping[str, Any], before: Mapping[str, set[int]], after: Mapping[str, set[int]]
) -> dict[str, tuple[int, int]]:
    """Return key -> (old, new) for what changed.

    Where a model does not show as many heads of queries as the configuration says, they go with those of the keys.
    """
    pairs = {key: (*before[key], *after[key]) for key in after if len(before.get(key, ())) == len(after[key]) == 1}
    if (given := part.get(QUERIES)) and (QUERIES not in pairs or pairs[QUERIES][0] != given):
        pairs.pop(QUERIES, None)
        old, new = pairs.get(KEYS, (1, 1))
        if given * new % old == 0:
            pairs[QUERIES] = (given, given * new // old)
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new and part.get(key, old) == old}


def _is_of(part: object, file: str) -> bool:
    """Tell whether a part of the configuration, or a stage of its pipeline, is of a file."""
    if isinstance(part, Mapping):
        return part.get("filename") == file or any(_is_of(value, file) for value in part.values())
    return isinstance(part, list) and any(_is_of(value, file) for value in part)


def _named(part: object, file: str, output: str) -> object:
    """Return the part with the new name of the file."""
    if isinstance(part, Mapping):
        return {k: output if k == "filename" and v == file else _named(v, file, output) for k, v in part.items()}
    return [_named(value, file, output) for value in part] if isinstance(part, list) else part


class _Counts:
    """What a model says of the numbers in its configuration."""

    def __init__(self, model: Model) -> None:
        self.view = View(model)
        self.shapes: Mapping[str, Shape] = trace(self.view).shapes

    def of(self, part: Mapping[str, object]) -> dict[str, set[int]]:
        """Return for each key the numbers that layers have; several where they differ."""
        caches = [(name, self.shapes[name]) for name, _ in self._caches(part) if name in self.shapes]
        four = [shape for _, shape in caches if len(shape) >= 4]  # .., heads, positions, size
        counts = {KEYS: {shape[-3] for shape in four}, "head_size": {shape[-1] for shape in four}}
        layers = {number for _, number in self._caches(part)}
        counts["num_hidden_layers"] = {len(layers)} if layers else set()
        counts[QUERIES] = set(self._query_heads())
        counts["hidden_size"] = set(self._widths(part))
        return {key: found for key, found in counts.items() if found}

    def scores(self, part: Mapping[str, object]) -> int | None:
        """Return how many tokens get a score, None where nothing is known of it."""
        shape = self.shapes.get(_names(part, "outputs").get("logits", "logits"), ())
        return shape[-1] if shape else None

    def gaps(self, part: Mapping[str, object]) -> list[str]:
        """Say where the numbers of layers in names are not 0, 1, 2, .. any more."""
        layers = sorted({number for _, number in self._caches(part)})
        if layers == list(range(len(layers))):
            return []
        listed = ", ".join(str(number) for number in layers)
        return [f"its names count layers without gaps, and the caches that are left are {listed}: rename them"]

    def _caches(self, part: Mapping[str, object]) -> Iterator[tuple[str, int]]:
        """Yield inputs that are caches, with the number of their layer."""
        given = _names(part, "inputs")
        wanted = {**NAMES, **given}
        for key in (*NAMES, TOGETHER):
            before, _, behind = str(wanted.get(key, "")).partition("%d")
            pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(behind))
            for name in self.view.inputs if before or behind else ():
                if found := pattern.fullmatch(name):
                    yield name, int(found[1])

    def _query_heads(self) -> Iterator[int]:
        """Yield the heads of every attention, as its attribute or the shape of its softmax says."""
        for node in self.view.nodes:
            counts = [int(value) for name in HEADS if (value := node.attribute(name, None)) is not None]
            yield from counts
            shape = self.shapes.get(node.inputs[0], ()) if node.op_type == "Softmax" and node.inputs else ()
            if not counts and len(shape) == 4:
                yield shape[1]

    def _widths(self, part: Mapping[str, object]) -> Iterator[int]:
        """Yield how wide a token is."""
        inputs = _names(part, "inputs")
        embedded = self.shapes.get(inputs.get("inputs_embeds", "inputs_embeds"), ())
        if len(embedded) == 3:
            yield embedded[-1]
        for node, _ in self.view.readers.get(inputs.get("input_ids", "input_ids"), ()):
            shape = self.shapes.get(node.outputs[0], ())
            if node.op_type.startswith("Gather") and len(shape) == 3:
                yield shape[-1]


def _names(part: Mapping[str, object], kind: str) -> dict[str, str]:
    """Return names of inputs or outputs that the configuration gives."""
    given = part.get(kind)
    pairs = given.items() if isinstance(given, Mapping) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}
