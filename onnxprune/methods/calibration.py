"""Inputs of the user for a method: read and checked once, then handed to whatever looks at them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnxprune.graph.model import Model
from onnxprune.statistics.data import Data, read
from onnxprune.statistics.feeds import input_specs
from onnxprune.statistics.image_options import ImageOptions

SAMPLES = 512
"""So many samples are read at most when no number is given: more hardly change a refit."""

DataSource = str | Path | Iterable[Any] | Any
"""Path of .npz, .npy, a folder of those or of images; `file.py:function`; feeds; a CalibrationDataReader; Data."""


def calibration(
    model: Model, source: DataSource, samples: int | None = None, images: ImageOptions | None = None
) -> Data:
    """Return the data for a model; what was read already is returned as it is.

    Raises:
        DataError: there are none, or names, shapes, types or values do not fit.
    """
    if isinstance(source, Data):
        return source
    return read(source, input_specs(model.proto), samples=samples or SAMPLES, images=images)
