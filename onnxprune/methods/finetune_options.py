"""What can be asked of `finetune`, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError
from onnxprune.methods.compensate_options import MOST_STEPS
from onnxprune.option import Options, documented, option

DEFAULT_STEPS = 600


LABEL_WEIGHT = 0.25
"""Labels pull each sample by far more than its distance; with more, steps run away from where distances have led."""


@documented
@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """Options of `finetune`.

    Without `compressed` it is what the step before gave. Labels are for every sample of the data; the distance to the
    original has weight 1 beside theirs. A loss is an ONNX graph that reads outputs by name, and `labels`; it gives one
    number, which is added.
    """

    compressed: Any = option(
        None, "The model to improve, or its file.", metavar="COMPRESSED", spelt="path", argument=True, untold=True
    )
    effort: str | None = option(
        None,
        "600 steps, as long as held-out samples get better, or a time (90s, 30m, 2h) [default: default].",
        metavar="default|thorough|TIME",
    )
    steps: int | None = option(None, "So many gradient steps instead.", metavar="N", least=1, most=MOST_STEPS)
    state: Path | None = option(
        None,
        "Keeps how far it is: after an interruption the same command goes on; removed at the end.",
        metavar="FILE",
        untold=True,
    )
    labels: Any = option(
        None,
        "What is right, too: .npy, .npz:KEY, or .csv with one a line.",
        metavar="FILE",
        keyword="str | Path | Array | None",
        untold=True,
    )
    criterion: str | None = option(
        None,
        "How labels are compared [default: cross-entropy for whole numbers, else mse].",
        choices=("cross-entropy", "mse", "bce", "ctc"),
    )
    label_weight: float = option(
        LABEL_WEIGHT,
        "Of that loss, in units of what the best constant answer loses, beside the distance [default: 0.25].",
        metavar="X",
    )
    label_output: str | None = option(None, "The output that labels are for, where there are several.", metavar="NAME")
    blank: int = option(
        0, "Class that stands between others in ctc, negative: from the last [default: 0].", metavar="N"
    )
    loss: Any = option(
        None,
        "A loss as a graph: of outputs by name, and labels.",
        metavar="FILE.ONNX",
        spelt="path",
        keyword="str | Path | onnx.ModelProto | None",
        untold=True,
    )
    augment: str = option(
        "auto",
        "Variations of samples [default: auto, those that the original bears].",
        metavar="auto|none|flip,shift,mix",
    )
    rate: float = option(0.01, "Of the largest step, against the weights [default: 0.01].", metavar="X")
    input_shapes: Mapping[str, tuple[int, ...]] = option(dict, "Input -> full shape, where dynamic sizes are fixed.")
    seed: int = option(0, "Seed of what is drawn by chance [default: 0].", least=0)
    select: int | None = option(None, "Steps see the K samples that say most [default: all].", metavar="K", least=1)

    def __post_init__(self) -> None:
        from onnxprune.compensate.augment import read_kinds

        super().__post_init__()
        for name in ("compressed", "labels", "loss"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))
        read_kinds(self.augment)
        if self.effort is not None:
            word = Effort.of(self.effort).word
            if word == "quick":
                raise UsageError("effort quick takes no gradient steps, and finetune does nothing else.")
            if word != "default" and self.steps is not None:
                raise UsageError(f"effort {self.effort} and steps {self.steps} both say how many; leave one out.")
        for name in ("label_weight", "rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise UsageError(f"{name} {value!r}: give a number above 0.")
        if isinstance(self.blank, bool) or not isinstance(self.blank, int):
            raise UsageError(f"blank {self.blank!r}: give the number of a class.")
        if self.blank and self.criterion != "ctc":
            raise UsageError("blank is for labels of criterion ctc.")
        if self.labels is None and (self.criterion or self.label_output or self.label_weight != LABEL_WEIGHT):
            raise UsageError("criterion, label_output and label_weight say how labels are used; give labels.")

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        given = self.labels is not None and not isinstance(self.labels, Path)
        return {**super().to_dict(), **({"labelled": True} if given else {})}
