"""Ranges of activations by onnxruntime's calibrators, fed batch after batch: memory does not grow with the data.

The calibrators of the package keep what they saw until the end when they are given all data at once; they merge what
they are given in pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.errors import DataError, ModelError
from onnxprune.files.scratch import scratch_folder
from onnxprune.methods.quantization.native import quiet
from onnxprune.types import Array

Feeds = Mapping[str, Array]

HISTOGRAM_BINS = {"entropy": 128, "percentile": 2048}


def collect(
    proto: onnx.ModelProto,
    feeds: Iterable[Feeds],
    *,
    method: str,
    operators: list[str],
    percentile: float = 99.99,
    same: Mapping[str, str] | None = None,
    only: Collection[str] | None = None,
    threads: int = 0,
) -> object:
    """Return onnxruntime's `TensorsData`: the range of every float tensor that one of the operators touches.

    Args:
        proto: with the types of its tensors in `value_info`.
        feeds: inputs; each one is run and forgotten.
        method: minmax, entropy or percentile.
        only: tensors that are observed; None takes all that the operators touch.
        same: tensors that are not observed -> the tensor whose range they get.

    Raises:
        ModelError: onnxruntime cannot run the model.
        DataError: no inputs, or values that are not finite.
    """
    with scratch_folder() as folder, quiet():
        calibrator = _calibrator(proto, Path(folder), method, operators, percentile, same or {}, only)
        calibrator.infer_session = _session(Path(folder) / "augmented.onnx", threads)
        calibrator.model = None
        number = 0
        for number, feed in enumerate(feeds, 1):  # noqa: B007
            try:
                calibrator.collect_data(_Reader(feed))
            except ValueError as error:
                raise DataError(f"the calibration data give values that have no range ({error}).") from error
            except Exception as error:
                raise ModelError(f"onnxruntime cannot run the model on the calibration data: {error}") from error
        if not number:
            raise DataError("there are no calibration data; give --data.")
        ranges = calibrator.compute_data()
    _check(ranges)
    found = dict(ranges.items())
    found |= {name: found[other] for name, other in (same or {}).items() if other in found}
    return type(ranges)(ranges.calibration_method, found)


class _Reader:
    """One batch in the form that the calibrators take."""

    def __init__(self, feed: Feeds) -> None:
        self.feed: Feeds | None = feed

    def get_next(self) -> Feeds | None:
        """Return the batch once."""
        feed, self.feed = self.feed, None
        return feed


def _calibrator(
    proto: onnx.ModelProto,
    folder: Path,
    method: str,
    operators: list[str],
    percentile: float,
    same: Mapping[str, str],
    only: Collection[str] | None,
) -> Any:
    from onnxruntime.quantization import calibrate

    onnx.save(proto, folder / "model.onnx", save_as_external_data=proto.ByteSize() > 1 << 30)
    settings: dict[str, Any] = {
        "op_types_to_calibrate": operators,
        "augmented_model_path": str(folder / "augmented.onnx"),
        "use_external_data_format": proto.ByteSize() > 1 << 30,
        "symmetric": False,
    }
    if method == "minmax":
        calibrator = calibrate.MinMaxCalibrater(folder / "model.onnx", **settings)
    elif method == "entropy":
        calibrator = calibrate.EntropyCalibrater(folder / "model.onnx", num_bins=HISTOGRAM_BINS[method], **settings)
    else:
        calibrator = calibrate.PercentileCalibrater(
            folder / "model.onnx", num_bins=HISTOGRAM_BINS[method], percentile=percentile, **settings
        )
    choose = calibrator.select_tensors_to_calibrate

    def without(model: onnx.ModelProto) -> tuple[set[str], object]:
        tensors, declared = choose(model)
        tensors -= {name for name, other in same.items() if other in tensors}
        return tensors if only is None else tensors & {*only}, declared

    calibrator.select_tensors_to_calibrate = without
    calibrator.augment_graph()
    return calibrator


def _session(path: Path, threads: int) -> object:
    from onnxprune.graph.session import open_session

    return open_session(path, threads=threads, level="extended", arena=False, label="the model with observers").native


def _check(ranges: Any) -> None:
    for name, data in ranges.items():
        low, high = data.range_value
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DataError(
                f"tensor '{name}' has values that are not finite on the calibration data; check the data, or keep "
                "what makes it float with --skip."
            )
