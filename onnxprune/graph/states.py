"""State that is fed back: outputs whose value is an input of the next call, found by name, type and shape.

Exporters have no mark for it. The names that are in use differ by words of direction only: `past_key_values.0.key` and
`present.0.key`, `state` and `stateN`, `h0` and `hn`, `cache_in_3` and `cache_out_3`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import onnx

from onnxprune.errors import UsageError
from onnxprune.graph.view import View

_PAST = re.compile(r"past_?key_?values", re.IGNORECASE)
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_DIRECTIONS = frozenset(
    "in out input output inputs outputs past present new next prev previous old updated update last init initial final "
    "n".split()
)
"""Words that tell an output from an input."""
_ENDS = {"hn": "h", "cn": "c", "h0": "h", "c0": "c", "ho": "h", "co": "c", "hi": "h", "ci": "c"}
"""Names of recurrent states before and after."""


def fed_back(view: View) -> tuple[tuple[str, str], ...]:
    """Return pairs (output, input) of state that is fed back, in the order of the outputs.

    A pair agrees in its name but for words of direction, in its data type, and in every size that both declare; a name
    that fits several is left out.
    """
    outputs = {value.name: value for value in view.model.proto.graph.output}
    inputs: dict[tuple[str, ...], list[str]] = {}
    for name in view.inputs:
        inputs.setdefault(_stem(name), []).append(name)
    stems: dict[tuple[str, ...], list[str]] = {}
    for name in outputs:
        stems.setdefault(_stem(name), []).append(name)
    pairs = []
    for stem, names in stems.items():
        partners = inputs.get(stem, [])
        fits = [(o, i) for o in names for i in partners if _agree(outputs[o], view.inputs[i])]
        if len(fits) == 1 and stem:
            pairs += fits
    return tuple(pairs)


def named_states(view: View, pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return pairs that are written as OUTPUT=INPUT.

    Raises:
        UsageError: one is not written so, names what the model does not have, or its sizes or types differ.
    """
    outputs = {value.name: value for value in view.model.proto.graph.output}
    found = []
    for text in pairs:
        output, equals, name = text.partition("=")
        if not equals:
            raise UsageError(f"state '{text}' is not like OUTPUT=INPUT.")
        for kind, what, known in (("output", output, outputs), ("input", name, view.inputs)):
            if what not in known:
                close = difflib.get_close_matches(what, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
                raise UsageError(f"state '{text}': the model has no {kind} '{what}'; {hint}")
        if not _agree(outputs[output], view.inputs[name]):
            raise UsageError(f"state '{text}': output and input differ in type or size, so it cannot be fed back.")
        found.append((output, name))
    return tuple(found)


def _stem(name: str) -> tuple[str, ...]:
    words = re.findall(r"[A-Za-z0-9]+", _PAST.sub("past", name))
    if len(words) == 2 and words[0].lower() in ("h", "c") and words[1].lower() in ("0", "n"):
        words = words[:1]
    lower = [_ENDS.get(word.lower()) for word in words]
    parts = [p for word, end in zip(words, lower, strict=True) for p in ([end] if end else _PIECES.findall(word))]
    return tuple(part.lower() for part in parts if part.lower() not in _DIRECTIONS)


def _agree(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    a, b = one.type.tensor_type, other.type.tensor_type
    if a.elem_type != b.elem_type or (a.HasField("shape") and len(a.shape.dim) != len(b.shape.dim)):
        return False
    return all(
        x.dim_value == y.dim_value
        for x, y in zip(a.shape.dim, b.shape.dim, strict=False)
        if x.HasField("dim_value") and y.HasField("dim_value")
    )
