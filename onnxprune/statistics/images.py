"""A folder of images as calibration data. Pillow is an extra (`pip install onnxprune[images]`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import DataError
from onnxprune.statistics.feeds import Feed, InputSpec
from onnxprune.statistics.image_options import ImageOptions
from onnxprune.types import Array

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def read_images(paths: Sequence[Path], spec: InputSpec, options: ImageOptions) -> Iterator[Feed]:
    """Yield one feed of one image for each file, in the type and layout of the input."""
    channels, size, layout = geometry(spec, options)
    image_module = _pillow()
    for path in paths:
        try:
            with image_module.open(path) as image:
                picture = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
                picture = picture.resize((size[1], size[0]), image_module.Resampling.BILINEAR)
                pixels = np.asarray(picture).reshape(*size, channels)
        except (OSError, ValueError, image_module.DecompressionBombError) as error:
            raise DataError(f"{path}: not a readable image ({error}); remove or replace it.") from error
        yield {spec.name: _scale(pixels, spec, options, layout)[None]}


def geometry(spec: InputSpec, options: ImageOptions) -> tuple[int, tuple[int, int], str]:
    """Return channels, (height, width) and layout that the input asks for.

    Raises:
        DataError: the input is no image, or its size is neither fixed nor given.
    """
    shape = spec.shape
    if shape is None or len(shape) != 4:
        raise DataError(f"a folder of images feeds a 4-D input, the model has {spec}; give .npz data.")
    layout = options.layout or ("NHWC" if shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4) else "NCHW")
    if layout not in ("NCHW", "NHWC"):
        raise DataError(f"--layout {layout}: NCHW or NHWC.")
    channels, height, width = (shape[1], *shape[2:]) if layout == "NCHW" else (shape[3], *shape[1:3])
    channels = 3 if channels is None else channels
    if channels not in (1, 3, 4):
        raise DataError(
            f"input {spec} has {channels} channels in layout {layout}; images have 1, 3 or 4. Give --layout."
        )
    if options.size is None and (height is None or width is None):
        raise DataError(f"input {spec} has no fixed image size; give --image-size HEIGHT,WIDTH.")
    return channels, options.size or (int(height or 0), int(width or 0)), layout


def _scale(pixels: Array, spec: InputSpec, options: ImageOptions, layout: str) -> Array:
    if spec.dtype.kind == "f":
        try:
            pixels = (pixels / 255.0 - np.asarray(options.mean)) / np.asarray(options.std)
        except ValueError as error:
            raise DataError(f"--mean and --std: one value or one for each of {pixels.shape[2]} channels.") from error
    if layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels, dtype=spec.dtype)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images need Pillow: pip install 'onnxprune[images]', or give the data as .npz.") from error
    return Image
