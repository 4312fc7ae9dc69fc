"""What a target is measured in. Each function prepares a model once and then tells the share that a choice leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from onnxprune.channels.groups import Keep
from onnxprune.errors import UsageError
from onnxprune.graph import count
from onnxprune.graph.trace import Shape
from onnxprune.graph.view import View

Measure = Callable[[Keep], float]
"""Masks -> what is left as a share of the original."""


class Shaped(Protocol):
    """What is needed of an analysis."""

    @property
    def view(self) -> View:
        """The model."""

    def shapes(self, keep: Keep) -> dict[str, Shape]:
        """Return the shape of every tensor after pruning."""


MEASURES: dict[str, Callable[[Shaped], Measure]] = {}


def measures(name: str) -> Callable[[Callable[[Shaped], Measure]], Callable[[Shaped], Measure]]:
    """Register what a target is measured in.

    Raises:
        ValueError: the name is taken.
    """

    def register(prepare: Callable[[Shaped], Measure]) -> Callable[[Shaped], Measure]:
        if name in MEASURES:
            raise ValueError(f"the target '{name}' is registered twice")
        MEASURES[name] = prepare
        return prepare

    return register


@measures("macs")
def macs_left(channels: Shaped) -> Measure:
    """Multiply-accumulates of one run."""
    return _share(lambda keep: sum(count.macs(channels.view, channels.shapes(keep)).values()), "MACs")


@measures("params")
def params_left(channels: Shaped) -> Measure:
    """Elements of all weights."""
    return _share(lambda keep: sum(count.params(channels.view, channels.shapes(keep)).values()), "parameters")


@measures("size")
def size_left(channels: Shaped) -> Measure:
    """Bytes of the file with its external data; what is no weight stays as it is."""
    rest = max(0, channels.view.model.size_bytes - sum(count.size_bytes(channels.view, {}).values()))
    return _share(lambda keep: rest + sum(count.size_bytes(channels.view, channels.shapes(keep)).values()), "bytes")


def _share(total: Callable[[Keep], int], unit: str) -> Measure:
    before = total({})
    if before <= 0:
        raise UsageError(f"the model has no {unit} to count, so no share of them can be asked for; give --ratio.")
    return lambda keep: total(keep) / before
