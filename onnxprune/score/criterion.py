"""The criteria by name. A module of this room adds one by decorating a function; help and docs read this table."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.score.group_slices import Slices
from onnxprune.score.spelled import DEFAULT
from onnxprune.types import FloatArray

ScoreFunction = Callable[[Slices], FloatArray]


@dataclass(frozen=True)
class Criterion:
    """One way to tell how much a channel matters.

    function: slices of one group -> (channels,) scores, higher matters more.
    needs_data: it looks at what the model does on data. needs_products: at products of channels, too.
    comparable: its values compare between groups as they are; all others are divided by their mean over the group.
    """

    name: str
    function: ScoreFunction
    comparable: bool
    needs_data: bool = False
    needs_products: bool = False

    @property
    def summary(self) -> str:
        """First line of its documentation."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


SCORES: dict[str, Criterion] = {}


def criterion(
    *labels: str, comparable: bool = False, needs_data: bool = False, needs_products: bool = False
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register a function under one or more names.

    Raises:
        ValueError: a name is taken.
    """

    def register(function: ScoreFunction) -> ScoreFunction:
        for label in labels:
            if label in SCORES:
                raise ValueError(f"the score '{label}' is registered twice")
            SCORES[label] = Criterion(label, function, comparable, needs_data, needs_products)
        return function

    return register


def names() -> list[str]:
    """Return the names of all criteria, the default first."""
    return sorted(SCORES, key=lambda name: (name != DEFAULT, name))


def find(name: str) -> Criterion:
    """Return a criterion.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SCORES:
        close = difflib.get_close_matches(name, SCORES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names())}."
        raise UsageError(f"there is no score '{name}'; {hint}")
    return SCORES[name]
