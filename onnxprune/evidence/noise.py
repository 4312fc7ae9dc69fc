"""Random images that look like photographs to a filter: neighbours agree, amplitudes fall as 1/f."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.graph.trace import Shape, Trace
from onnxprune.graph.view import View
from onnxprune.types import Array, FloatArray

COLOURS = (1, 3, 4)
SMALLEST = 8
"""Axes of an image have at least so many pixels."""
BYTES = 64
"""What divides by at least this, or subtracts half of it, expects pixels of 0 to 255."""
CARRIERS = frozenset({"Cast", "Identity", "Transpose"})


@dataclass(frozen=True)
class Image:
    """How an input holds images: axis of the colours, and whether pixels are 0 to 255 or around 0."""

    colour_axis: int
    bytes: bool


def image_of(name: str, dtype: np.dtype[np.generic] | None, shape: Shape, view: View, trace: Trace) -> Image | None:
    """Return how an input holds images, None if it does not look as if it did."""
    if dtype is None or len(shape) != 4 or (dtype.kind != "f" and dtype != np.uint8):
        return None
    axis = 1 if shape[1] in COLOURS else 3 if shape[3] in COLOURS else None
    if axis is None or min(size for i, size in enumerate(shape) if i not in (0, axis)) < SMALLEST:
        return None
    return Image(axis, dtype == np.uint8 or _expects_bytes(name, view, trace))


def _expects_bytes(name: str, view: View, trace: Trace) -> bool:
    for node, _ in view.readers.get(name, []):
        if node.op_type in CARRIERS and _expects_bytes(node.outputs[0], view, trace):
            return True
        constants = [trace.values[key] for key in node.inputs if key in trace.values and trace.values[key].size]
        size = float(np.abs(constants[0]).mean()) if constants and constants[0].dtype.kind in "iuf" else 0.0
        large = (node.op_type == "Div" and size >= BYTES) or (node.op_type == "Sub" and size >= BYTES / 2)
        if large or (node.op_type == "Mul" and 0 < size <= 1 / BYTES):
            return True
    return False


def pink_images(shape: Shape, image: Image, rng: np.random.Generator) -> FloatArray:
    """Return images with 1/f amplitudes, each of its own brightness and contrast, colours mostly alike.

    Source: Field 1987, Relations between the statistics of natural images and the response properties of cortical
    cells, figure 7: the amplitude of natural images falls as 1/f.
    """
    sizes = [size for axis, size in enumerate(shape) if axis not in (0, image.colour_axis)]
    batch, colours = shape[0], shape[image.colour_axis]
    grey, own = _pink((batch, 1), sizes, rng), _pink((batch, colours), sizes, rng)
    each = (batch, 1, 1, 1)
    contrast, brightness = rng.uniform(0.5, 1.5, each), rng.normal(0.0, 0.5, each)
    pixels = contrast * (0.9 * grey + 0.45 * own) + brightness
    if image.bytes:
        pixels = np.clip(127.5 + 64.0 * pixels, 0.0, 255.0)
    return np.asarray(pixels if image.colour_axis == 1 else np.moveaxis(pixels, 1, 3))


def _pink(leading: tuple[int, int], sizes: list[int], rng: np.random.Generator) -> Array:
    """Return (*leading, *sizes) noise whose amplitude falls as 1/f, mean 0, variance 1."""
    height, width = sizes
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal((*leading, height, width))) / frequency
    image = np.fft.irfft2(noise, s=(height, width))
    return np.asarray(image / np.maximum(image.std(axis=(2, 3), keepdims=True), 1e-12))
