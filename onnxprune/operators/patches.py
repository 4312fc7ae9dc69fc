"""What a convolution multiplies its weights with: im2col patches as rows, for Conv and ConvTranspose of 1 to 3 axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.types import Array, IntArray


@dataclass(frozen=True)
class Window:
    """Geometry of a convolution along its spatial axes; `begins` are the pads in front."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    transposed: bool = False

    @property
    def taps(self) -> int:
        """Number of weights in the window."""
        return int(np.prod(self.kernel))


def begin_pads(
    auto_pad: str,
    pads: Sequence[int],
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Return the pads in front of each axis of a Conv, `auto_pad` resolved for an input of the given sizes."""
    if not auto_pad.startswith("SAME"):
        return tuple(pads[: len(kernel)]) if pads and auto_pad != "VALID" else (0,) * len(kernel)
    begins = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
    return tuple(begins)


def tap_sources(window: Window, axis: int, size: int, out_size: int) -> IntArray:
    """Return (kernel, out) input positions read by every tap for every output; `size` stands for a padded zero."""
    tap = np.arange(window.kernel[axis], dtype=np.int64)[:, None] * window.dilations[axis]
    out = np.arange(out_size, dtype=np.int64)[None, :]
    stride, begin = window.strides[axis], window.begins[axis]
    if not window.transposed:
        source = out * stride - begin + tap
        valid = (source >= 0) & (source < size)
    else:
        scaled = out + begin - tap
        source = scaled // stride
        valid = (scaled % stride == 0) & (source >= 0) & (source < size)
    return np.where(valid, source, size)


class Patches:
    """Rows of patches of one batch of activations.

    Row r of group g is the vector that the weights of group g multiply to give output position r:
    y[r, o] = sum over (tap, channel) of rows[g, r, tap * width + channel] * w[o, tap, channel].
    """

    def __init__(self, x: Array, out_sizes: Sequence[int], window: Window, groups: int) -> None:
        """Take x of shape (batch, channels, *sizes)."""
        batch, channels, *sizes = x.shape
        padded = np.zeros((batch, *(size + 1 for size in sizes), channels), np.float32)
        padded[(slice(None), *(slice(0, size) for size in sizes))] = np.moveaxis(x, 1, -1)
        self._flat = padded.reshape(-1, channels)
        self._strides = [int(np.prod([s + 1 for s in sizes[i + 1 :]])) for i in range(len(sizes))]
        self._image = int(np.prod([s + 1 for s in sizes]))
        self._sources = [
            tap_sources(window, i, size, out) for i, (size, out) in enumerate(zip(sizes, out_sizes, strict=True))
        ]
        self._out_sizes, self._groups, self._window = tuple(out_sizes), groups, window
        self.count = batch * int(np.prod(out_sizes))

    def rows(self, indices: IntArray) -> Array:
        """Return (groups, rows, taps * width) for positions counted over (batch, *out_sizes)."""
        image, *outs = self._unravel(indices)
        address = (image * self._image)[:, None]
        for axis, out in enumerate(outs):
            part = self._sources[axis][:, out].T * self._strides[axis]
            address = (address[:, :, None] + part[:, None, :]).reshape(len(indices), -1)
        patch = self._flat[address].reshape(len(indices), self._window.taps, self._groups, -1)
        return np.ascontiguousarray(patch.transpose(2, 0, 1, 3)).reshape(self._groups, len(indices), -1)

    def _unravel(self, indices: IntArray) -> list[IntArray]:
        position = int(np.prod(self._out_sizes))
        inner = np.unravel_index(indices % position, self._out_sizes)
        return [indices // position, *(np.asarray(i, np.int64) for i in inner)]
