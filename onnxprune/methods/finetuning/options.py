"""What can be asked of `finetune`, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from onnxprune.compensate.augment import read_kinds
from onnxprune.compensate.effort import Effort
from onnxprune.compensate.terms import CRITERIA
from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import choose, named

PATHS = ("compressed", "labels", "loss", "state")
DEFAULT_STEPS = 600


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of `finetune`.

    compressed: the model to improve, or its file; None: what the step before gave.
    effort: "default" (600 steps), "thorough" (as long as samples that are held out get better), or a time such as
        "30m". steps: so many instead.
    labels: what is right for every sample of the data: .npy, .npz:KEY, .csv (one a line), or an array.
    criterion: how labels are compared: "cross-entropy" (classes as numbers or shares), "mse", "bce" (0 to 1 for every
        output); None: by their type. label_weight: of that loss, beside the distance to the original, which has 1.
    label_output: the output that they are for, where there are several.
    loss: a loss as an ONNX graph, added to these: it reads outputs by name, and `labels`; it gives one number.
    augment: "auto" (variations that the original bears), "none", or some of flip, shift.
    state: file that keeps how far it is, so that an interrupted run goes on; removed when the output is written.
    rate: of the largest step, relative to the size of the weights.
    input_shapes: graph input -> full shape, where dynamic sizes need to be fixed.
    seed: of what is drawn by chance.
    """

    compressed: Any = None
    effort: str | None = None
    steps: int | None = None
    labels: Any = None
    criterion: str | None = None
    label_weight: float = 1.0
    label_output: str | None = None
    loss: Any = None
    augment: str = "auto"
    state: Path | None = None
    rate: float = 0.01
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in PATHS:
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))
        read_kinds(self.augment)
        if self.effort is not None:
            word = Effort.of(self.effort).word
            if word == "quick":
                raise UsageError("effort quick takes no gradient steps, and finetune does nothing else.")
            if word != "default" and self.steps is not None:
                raise UsageError(f"effort {self.effort} and steps {self.steps} both say how many; leave one out.")
        if self.steps is not None and (not isinstance(self.steps, int) or self.steps < 1):
            raise UsageError(f"steps {self.steps!r}: give a whole number from 1.")
        for name in ("label_weight", "rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
                raise UsageError(f"{name} {value!r}: give a number above 0.")
        if self.criterion is not None:
            choose("criterion", self.criterion, CRITERIA)
        if self.labels is None and (self.criterion or self.label_output or self.label_weight != 1.0):
            raise UsageError("criterion, label_output and label_weight say how labels are used; give labels.")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return options by name.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        return cls(**named(cls, values))

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        default = FinetuneOptions()
        values = {n: v for n, v in vars(self).items() if n not in PATHS and v != getattr(default, n)}
        return {**values, **({"labelled": True} if self.labels is not None and self._is_array else {})}

    @property
    def _is_array(self) -> bool:
        return isinstance(self.labels, np.ndarray)
