"""How models are run, and on how much: the one class for it, whoever asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxprune.cluster.hiring import check_address
from onnxprune.devices.watches import check_watch
from onnxprune.errors import UsageError
from onnxprune.hardware.target import target_named, target_names
from onnxprune.methods.runtime import Runtime
from onnxprune.option import check_plain, documented, option
from onnxprune.statistics.image_options import ImageOptions

LARGEST_SIZE = 2**31 - 1
"""Of an axis: what does not fit into 32 bits is a mistake."""

THERE = ("device", "latency_command", "latency_timeout")
"""Where and how latencies are measured elsewhere."""
SHARED = ("seed", "input_shapes", "memory", "target")
"""What the options of methods take from the run, unless a step says it itself."""


@documented
@dataclass(frozen=True)
class Run(Runtime):
    """How a job is run. Without a number, 512 samples are used at most."""

    samples: int | None = option(None, "How many inputs to run.", metavar="N", least=1)
    seed: int = option(0, "Seed of what is random [default: 0].", metavar="N", least=0)
    input_shapes: Mapping[str, tuple[int, ...]] = option(
        dict, "Sizes of an input: name:1,3,224,224 (repeatable).", flag="--input-shape", spelt="shape"
    )
    target: str | None = option(
        None,
        "What the result will run on: its widths, and the types of quantize, follow it [default: onnxruntime on any "
        "CPU].",
        metavar="NAME",
        listed=target_names,
    )
    images: ImageOptions = option(ImageOptions(), "How images become inputs.", spelt="group")
    verify: bool | None = option(
        None,
        "Compare with the original, a pruned model with the one whose removed channels are zeroed [default: where that "
        "is quick]; --no-verify runs nothing but what a method needs.",
    )

    def __post_init__(self) -> None:
        given = {} if self.input_shapes is None else self.input_shapes
        if not isinstance(given, Mapping):
            raise UsageError(f"input_shapes: a {type(given).__name__} is no table of inputs and their shapes.")
        object.__setattr__(self, "input_shapes", dict(given))
        for name, shape in given.items():
            sizes = list(shape) if isinstance(shape, Iterable) else [str(shape)]
            if not all(isinstance(size, int) and 1 <= size <= LARGEST_SIZE for size in sizes):
                raise UsageError(f"input_shapes of '{name}': {sizes}: give whole numbers from 1 to {LARGEST_SIZE}.")
        check_plain(self)
        if self.target is not None:
            target_named(self.target)
        check_watch(self.device, self.latency_command, self.latency_timeout)
        if self.cluster is not None:
            check_address(self.cluster)
