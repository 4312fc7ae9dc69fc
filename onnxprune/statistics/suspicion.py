"""What about data may mislead a refit: samples that are nearly equal, or that hardly show more than one class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.model import Model
from onnxprune.graph.session import open_session
from onnxprune.statistics.data import Data
from onnxprune.statistics.feeds import Feed
from onnxprune.types import Array

NEARLY = 1e-4
"""Mean squared difference from the first sample, relative to its own variance, up to which samples count as equal."""
LOOKED_AT = 64
ENOUGH = 8
"""Fewer samples of one class may be chance."""
MOST = 0.95
"""Share of one class from which the others count as missing: the original errs now and then."""
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def suspicions(model: Model, data: Data, threads: int = 0, provider: str | None = None) -> list[str]:
    """Return one line for everything that looks misleading, with what to do about it.

    At most 64 samples, evenly spread over the data, are looked at and run through the original.
    """
    if data.samples < 2:
        return []
    feeds = _spread(data)
    if all(bool((array == array.flat[0]).all()) for feed in feeds for array in feed.values() if array.size):
        return []  # constant data are told when they are read
    equal = _nearly_equal(feeds)
    return [equal] if equal else _one_class(model, feeds, threads, provider)


def _spread(data: Data) -> list[Feed]:
    """Return feeds of one sample (or one batch, where it is fixed), evenly spread."""
    feeds = data.batches(1)
    step = max(1, data.samples // LOOKED_AT)
    return list(islice(feeds, 0, None, step))[:LOOKED_AT]


def _nearly_equal(feeds: list[Feed]) -> str | None:
    differences = []
    for name, first in feeds[0].items():
        if first.dtype.kind not in "fiub":
            return None
        rows = [array for feed in feeds for array in _samples(feed[name])]
        if len(rows) < 2 or any(row.shape != rows[0].shape for row in rows):
            return None
        start = rows[0].astype(np.float64)
        apart = max(float(np.square(row - start).mean()) for row in rows[1:])
        differences.append(apart / max(float(start.var()), 1e-30))
    if max(differences) > NEARLY:
        return None
    return (
        "all samples looked at are nearly equal, so statistics know one input only; give samples as different as those "
        "that the model will see"
    )


def _samples(array: Array) -> list[Array]:
    return list(array) if array.ndim > 1 else [array]


@dataclass
class _Classes:
    """Which of an output's values was the largest."""

    seen: Counter[int] = field(default_factory=Counter)
    valid: bool = True

    def add(self, array: Array) -> None:
        rows = array.reshape(len(array), -1) if array.ndim > 1 else array[None]
        self.valid = self.valid and array.ndim > 1 and rows.shape[1] == array.shape[1] > 1
        if self.valid and np.isfinite(rows).all():
            self.seen.update(int(place) for place in rows.argmax(axis=1))

    def line(self, name: str) -> str | None:
        """Return what to say of an output, None if there is nothing."""
        (number, most), total = next(iter(self.seen.most_common(1)), (0, 0)), self.seen.total()
        if not self.valid or total < ENOUGH or most < MOST * total:
            return None
        return (
            f"output '{name}' is largest at number {number} for {most} of {total} samples looked at: if these are "
            "classes, the data hardly show the others, and what tells them apart may be lost; add samples of them to "
            "--data, no labels are needed"
        )


def _one_class(model: Model, feeds: list[Feed], threads: int, provider: str | None) -> list[str]:
    outputs = [v.name for v in model.proto.graph.output if v.type.tensor_type.elem_type in FLOATS]
    if not outputs:
        return []
    table = {name: _Classes() for name in outputs}
    try:
        session = open_session(model.proto, threads=threads or None, provider=provider, folder=model.folder)
        for feed in feeds:
            for name, array in zip(outputs, session.values(outputs, feed), strict=True):
                table[name].add(array)
    except ModelError:
        return []  # whoever needs the outputs will say so
    return [line for name, found in table.items() if (line := found.line(name)) is not None]
