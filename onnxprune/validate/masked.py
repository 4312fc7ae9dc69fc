"""Masked parity: a pruned model must do what the original does with the removed slices zeroed, up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.validate.compare import Reference
from onnxprune.validate.parity import Meters
from onnxprune.validate.session import Session

if TYPE_CHECKING:
    from onnxprune.graph.view import View

TOLERANCE = 1e-3
"""Relative error that rounding may cause in float32, whatever the order of the sums."""

NOISE_FACTOR = 30.0
"""A model that differs from itself between optimisation levels is allowed this many times that difference."""

STEPS = frozenset(
    "TopK NonMaxSuppression ArgMax ArgMin Round Floor Ceil Sign Mod BitShift Unique NonZero Hardmax Equal Greater Less "
    "GreaterOrEqual LessOrEqual QuantizeLinear DynamicQuantizeLinear RoiAlign RandomNormal RandomUniform "
    "RandomNormalLike RandomUniformLike Multinomial Bernoulli QLinearConv QLinearMatMul QLinearAdd".split()
)
"""Operators that turn a rounding difference into a visible one: what follows them is reported but not judged."""


@dataclass(frozen=True)
class MaskedParity:
    """Outcome of the comparison with the masked original.

    errors: output -> relative error (largest difference over largest value), the median over the samples.
    tolerance: what was allowed.
    failed: judged outputs above it.
    unsure: outputs above it that stand behind an operator with steps (a sort, a rounding).
    """

    errors: dict[str, float]
    tolerance: float
    failed: tuple[str, ...]
    unsure: tuple[str, ...]

    @property
    def worst(self) -> float:
        """The largest error of the outputs that are judged, else of all."""
        judged = [error for name, error in self.errors.items() if name not in self.unsure]
        return max(judged or self.errors.values(), default=0.0)


def masked_parity(
    reference: Reference, masked: Session, pruned: Session, measure_noise: Callable[[], list[float]], view: View
) -> MaskedParity:
    """Compare the pruned model with the masked original on the samples of the reference.

    Args:
        measure_noise: relative errors of models that should not differ at all; called only where they decide.
        view: the original, to see which outputs stand behind steps.
    """
    series: dict[str, list[float]] = {}
    for feeds in reference.samples[:5]:
        meters = Meters()
        meters.add(masked.run(feeds), pruned.run(feeds))
        for name, error in meters.relative_errors().items():
            series.setdefault(name, []).append(error)
    errors = {name: float(np.median(values)) for name, values in series.items()}
    tolerance = TOLERANCE
    if any(not error <= TOLERANCE for error in errors.values()):
        own = [error for error in measure_noise() if math.isfinite(error)]
        tolerance = max(TOLERANCE, NOISE_FACTOR * max(own, default=0.0))
    above = [name for name, error in errors.items() if not error <= tolerance]
    unsure = _behind_steps(view) if reference.repeatable else set(errors)
    return MaskedParity(
        errors,
        tolerance,
        failed=tuple(name for name in above if name not in unsure),
        unsure=tuple(name for name in above if name in unsure),
    )


def _behind_steps(view: View) -> set[str]:
    """Return the outputs that follow a step on something computed with weights (not on sizes and masks)."""
    computed: set[str] = set()
    reached: set[str] = set()
    for node in view.nodes:
        inputs = {key for key in (*node.inputs, *node.captured, *sum(node.branches, ())) if key}
        if node.op_type in ("Shape", "Size"):
            continue
        if inputs & computed or any(_is_weight(view, key) for key in inputs):
            computed.update(node.outputs)
            if inputs & reached or (node.op_type in STEPS and inputs & computed):
                reached.update(node.outputs)
    return {name for name in view.outputs if name in reached}


def _is_weight(view: View, key: str) -> bool:
    return key in view.parameters and len(view.parameters[key].dims) > 1
