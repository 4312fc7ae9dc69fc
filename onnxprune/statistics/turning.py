"""Few images go further when they are seen mirrored and upside down too: what is fitted to them holds for others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.statistics.data import Data, read

ENOUGH = 128
"""So many samples are better than copies."""
FEW = 96
"""From so many on they are used as they are: what is left of `ENOUGH` when one in four is kept for judging."""
CHANNELS = (1, 3, 4)


def turned_if_few(data: Data) -> Data:
    """Return the data; fewer than `FEW` images are followed by their mirrored, flipped and turned copies.

    The original says what is right for every copy, so the copies need not mean the same. Other inputs than images of
    one size with 1, 3 or 4 channels stay as they are.
    """
    if data.samples >= FEW or data.synthetic or len(data.inputs) != 1:
        return data
    (spec,) = data.inputs
    shape = spec.shape or ()
    if spec.dtype.kind != "f" or len(shape) != 4 or not {shape[1], shape[3]} & set(CHANNELS):
        return data
    rows, columns = (2, 3) if shape[1] in CHANNELS else (1, 2)
    batches = [feed[spec.name] for feed in data]
    if len({array.shape[1:] for array in batches}) > 1:
        return data
    images = np.concatenate(batches)
    axes = ((), (columns,), (rows,), (rows, columns))
    turned = (image for turn in axes for image in np.flip(images, turn))
    # a copy that is there already would count twice, and stand on both sides of a held-out share
    copies = list({image.tobytes(): image for image in turned}.values())
    note = f"{data.samples} images are few: mirrored and turned copies are used as well; give {ENOUGH} or more."
    if len(copies) == len(images):
        return data
    grown = read({spec.name: np.stack(copies)}, data.inputs)
    return replace(grown, warnings=(*data.warnings, note))
