"""How images become inputs, as people ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.option import documented, option


@documented
@dataclass(frozen=True)
class ImageOptions:
    """How images become arrays: x = (pixel / 255 - mean) / std, resized to `size` (height, width)."""

    section: ClassVar[str] = "Inputs, and how models are run"

    size: tuple[int, int] | None = option(
        None, "Images are resized to it [default: the input's].", flag="--image-size", spelt="size"
    )
    mean: tuple[float, ...] = option(
        (0.0,), "Subtracted from pixels on the scale 0 to 1 [default: 0].", spelt="numbers"
    )
    std: tuple[float, ...] = option((1.0,), "Divides them then [default: 1].", spelt="numbers")
    layout: str | None = option(None, "Of images [default: the input's].", choices=("NCHW", "NHWC"))
