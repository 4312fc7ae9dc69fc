"""A number that is none, or out of its range, is refused at every door, and says which option it is of."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from onnxprune.errors import DataError, UsageError
from onnxprune.job.gates import Gates
from onnxprune.job.methods import METHODS
from onnxprune.job.run import Run
from onnxprune.option import Said, said
from onnxprune.recipe.recipe import parse_recipe

CLASSES = [*(method.options for method in METHODS.values()), Run, Gates]


def beyond(about: Said) -> list[float]:
    """Return numbers just outside of a range."""
    low = [] if about.least is None else [about.least - 1, *([about.least] if "<" in about.open else [])]
    high = [] if about.most is None else [about.most + 1, *([about.most] if ">" in about.open else [])]
    return [*low, *high]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_numbers_out_of_range_are_refused_by_their_class(kind: type) -> None:
    tried = 0
    for field in fields(kind):
        name, number = field.name, str(field.type).removesuffix(" | None")
        if number not in ("int", "float") or said(field).choices:
            continue
        wrong: list[object] = [int(bad) if number == "int" else float(bad) for bad in beyond(said(field))]
        if number == "float":
            wrong += [float("nan"), float("inf"), "much", True]
        for bad in wrong:
            with pytest.raises(UsageError, match=name.replace("_", "[_-]")):
                kind(**{name: bad})
            tried += 1
    assert tried or kind.__name__ in ("TrimOptions", "UnpackOptions"), "no number was tried"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("memory: 2", "memory 2"),
        ("memory: 4XB", "memory '4XB'"),
        ("samples: 0", "samples 0"),
        ("target: hexagon", "target 'hexagon'"),
        ("latency_timeout: .nan", "latency_timeout"),
        ("gates: {min_cosine: 7}", "min_cosine 7"),
        ("gates: {min_agreement: -1}", "min_agreement -1"),
        ("section: 1", "no 'section'"),
    ],
)
def test_a_recipe_says_the_line_of_a_number_out_of_range(line: str, words: str) -> None:
    text = f"model: a.onnx\n{line}\nsteps:\n  - prune: {{ratio: 0.3}}\n"
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "r.yaml")
    assert str(caught.value).startswith("r.yaml:2: ") and words in str(caught.value)


def test_what_a_class_has_besides_its_fields_is_no_option_of_a_step() -> None:
    with pytest.raises(UsageError, match=r"r\.yaml:2: .*no 'section'"):
        parse_recipe("steps:\n  - prune: {section: 0.3}\n", "r.yaml")


@pytest.mark.parametrize(("text", "size"), [("4GB", 4 << 30), ("512MB", 512 << 20), ("4294967296", 4 << 30)])
def test_memory_is_spelt_in_a_recipe_as_on_the_command_line(text: str, size: int) -> None:
    assert parse_recipe(f"memory: {text}\nsteps:\n  - prune\n").run.memory == size


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_values_of_a_foreign_type_are_refused_in_one_line(kind: type) -> None:
    refused = 0
    for field in fields(kind):
        for bad in (5, 1.5, [1], {"a": 1}, {1: 2}, b"x", [None], np.zeros(3), object()):
            try:
                kind(**{field.name: bad})
            except (UsageError, DataError) as error:
                assert len(str(error).splitlines()) == 1
                refused += 1
    assert refused


@pytest.mark.parametrize(
    "given", ["a*", ["a*"], ("a*",), {"a*"}, (word for word in ["a*"])], ids=lambda given: type(given).__name__
)
def test_words_come_in_anything_that_can_be_walked_through(given: object) -> None:
    assert METHODS["prune"].options(skip=given).skip == ("a*",)
