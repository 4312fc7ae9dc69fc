"""What running a vast model level by level will take, told before it begins: CPU seconds, and bytes on disk.

No room is found out at the beginning, not after hours.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from onnxprune.compensate.closed_cost import closed_form_seconds
from onnxprune.compensate.stages import Stages
from onnxprune.errors import ModelError
from onnxprune.graph.external import external_tensors
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import tensor_bytes
from onnxprune.graph.trace import Shape, trace
from onnxprune.graph.view import View
from onnxprune.statistics.feeds import Feed

NUMBER = 4
"""Bytes of one number of an activation."""


@dataclass(frozen=True)
class Foretold:
    """CPU seconds, and bytes of files in the temporary folder at the same time, at most."""

    seconds: float
    disk: int

    def __str__(self) -> str:
        time = f"{self.seconds / 60:.0f} CPU minutes" if self.seconds >= 120 else f"{self.seconds:.0f} CPU seconds"
        return f"about {time}, up to {self.disk / 1e9:.1f} GB of files in '{tempfile.gettempdir()}'"

    def require_room(self) -> None:
        """Make sure that the files fit.

        Raises:
            ModelError: they do not.
        """
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if self.disk > free:
            raise ModelError(
                f"'{folder}' has {free / 1e9:.1f} GB free, and up to {self.disk / 1e9:.1f} GB of files are needed "
                "there while a model of this size is looked at; use fewer --samples, raise --memory, or set TMPDIR to "
                "a larger disk."
            )


def foretold(
    model: Model,
    networks: Sequence[Stages],
    feeds: Sequence[Feed],
    shapes: Mapping[str, Shape],
    memory: int,
    changed: Model | None = None,
) -> Foretold:
    """Return what a walk through the levels takes.

    Args:
        networks: those that run, with the names of tensors of `model`.
        shapes: of these tensors, see `shapes_of`. memory: bytes of what waits that take no disk.
        changed: the model that gets new weights, which wait in files; None: none does.
    """
    waiting = sum(_waiting(network, shapes) for network in networks) * len(feeds)
    weights = sum(tensor_bytes(tensor) or 0 for tensor in external_tensors(changed.proto)) if changed else 0
    samples = sum(max((len(array) for array in feed.values() if array.ndim), default=1) for feed in feeds)
    return Foretold(closed_form_seconds(model, feeds[0], samples), max(0, waiting - memory) + weights)


def shapes_of(model: Model, feeds: Sequence[Feed]) -> Mapping[str, Shape]:
    """Return the shapes of the tensors of a model on the first of some feeds."""
    return trace(View(model), {name: array.shape for name, array in feeds[0].items()}).shapes


def _waiting(network: Stages, shapes: Mapping[str, Shape]) -> int:
    """Return the bytes that wait at the same time, at most, for each feed."""
    changes: dict[int, int] = {}
    for name, (first, last) in network.stays.items():
        size = NUMBER * prod(shapes.get(name, ()))
        changes[first] = changes.get(first, 0) + size
        changes[last + 1] = changes.get(last + 1, 0) - size
    total = most = 0
    for level in sorted(changes):
        total += changes[level]
        most = max(most, total)
    return most
