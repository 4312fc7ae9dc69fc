"""How models are run, and on how much: the one class for it, whoever asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxprune.errors import UsageError
from onnxprune.methods.calibration import Runtime
from onnxprune.statistics.images import ImageOptions

LARGEST_SIZE = 2**31 - 1
"""Of an axis: what does not fit into 32 bits is a mistake."""

SHARED = ("seed", "input_shapes", "memory")
"""What the options of methods take from the run, unless a step says it itself."""


@dataclass(frozen=True)
class Run(Runtime):
    """How a job is run. Threads, provider and memory are those of `Runtime`.

    samples: so many of the data are used; None: 512 at most.
    seed: of what is random.
    input_shapes: graph input -> full shape, where dynamic sizes need to be fixed.
    images: how images become inputs.
    verify: check masked parity after a prune; None: where it is quick; False: the result is not run at all.
    """

    samples: int | None = None
    seed: int = 0
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    images: ImageOptions = field(default_factory=ImageOptions)
    verify: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))
        for name, shape in self.input_shapes.items():
            if not all(isinstance(size, int) and 1 <= size <= LARGEST_SIZE for size in shape):
                raise UsageError(
                    f"input_shapes of '{name}': {list(shape)}: give whole numbers from 1 to {LARGEST_SIZE}."
                )
        for name, least in (("samples", 1), ("seed", 0), ("threads", 0), ("memory", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UsageError(f"{name} {value!r}: give a whole number from {least}.")
