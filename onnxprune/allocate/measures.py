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


class Prepare(Protocol):
    """Makes a measure. whole: what shares are of, where `channels` is a part of it already; None: `channels` itself."""

    def __call__(self, channels: Shaped, whole: Shaped | None = None) -> Measure:
        """Return the measure."""


MEASURES: dict[str, Prepare] = {}


def measures(name: str) -> Callable[[Prepare], Prepare]:
    """Register what a target is measured in.

    Raises:
        ValueError: the name is taken.
    """

    def register(prepare: Prepare) -> Prepare:
        if name in MEASURES:
            raise ValueError(f"the target '{name}' is registered twice")
        MEASURES[name] = prepare
        return prepare

    return register


@measures("macs")
def macs_left(channels: Shaped, whole: Shaped | None = None) -> Measure:
    """Multiply-accumulates of one run."""
    return _share(_macs, channels, whole, "MACs")


@measures("params")
def params_left(channels: Shaped, whole: Shaped | None = None) -> Measure:
    """Elements of all weights."""
    return _share(_params, channels, whole, "parameters")


@measures("size")
def size_left(channels: Shaped, whole: Shaped | None = None) -> Measure:
    """Bytes of the file with its external data; what is no weight stays as it is."""
    return _share(_bytes, channels, whole, "bytes")


def _macs(part: Shaped) -> Callable[[Keep], int]:
    return lambda keep: sum(count.macs(part.view, part.shapes(keep)).values())


def _params(part: Shaped) -> Callable[[Keep], int]:
    return lambda keep: sum(count.params(part.view, part.shapes(keep)).values())


def _bytes(part: Shaped) -> Callable[[Keep], int]:
    rest = max(0, part.view.model.size_bytes - sum(count.size_bytes(part.view, {}).values()))
    return lambda keep: rest + sum(count.size_bytes(part.view, part.shapes(keep)).values())


def _share(
    total: Callable[[Shaped], Callable[[Keep], int]], channels: Shaped, whole: Shaped | None, unit: str
) -> Measure:
    left = total(channels)
    before = total(whole)({}) if whole is not None else left({})
    if before <= 0:
        raise UsageError(f"the model has no {unit} to count, so no share of them can be asked for; give --ratio.")
    return lambda keep: left(keep) / before
