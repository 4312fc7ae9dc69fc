"""Which widths suit what a model will run on: what is asked for, what the target wants, else what is usual."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnx import TensorProto

from onnxprune.allocate.alignment import INTEGERS, AxisSizes, Widths
from onnxprune.errors import UsageError
from onnxprune.graph.view import View
from onnxprune.hardware.host import host
from onnxprune.hardware.target import Target, target_named

if TYPE_CHECKING:
    from onnxprune.channels.groups import ChannelGroup
    from onnxprune.methods.candidate_options import CandidateOptions

ALIGN = 8
"""Kept counts are multiples of it where a latency is asked for: other widths leave the fast convolution kernels."""
STORED: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
}


@dataclass(frozen=True)
class Rounding:
    """What lengths of axes are rounded to, and why.

    target: that was named; None: the widths suit onnxruntime on any CPU.
    precision: numbers that the result computes in.
    """

    widths: Widths
    precision: str
    target: Target | None = None

    def held(self, groups: Iterable[ChannelGroup], sizes: AxisSizes, named: Iterable[str]) -> dict[str, str]:
        """Say of every group that the target wants left as it is why.

        Args:
            named: groups that were asked for by name.

        Raises:
            UsageError: one of these is left alone.
        """
        if self.target is None:
            return {}
        reasons: dict[str, str] = {}
        for group in groups:
            if group.kind in self.target.forbids:
                reasons[group.name] = f"{self.target.name} has no fast kernel for other sizes of {group.kind}"
            elif self.widths.whole and self.widths.step(group, sizes) >= group.size:
                reasons[group.name] = f"as narrow as {self.target.name} computes at once ({self.widths})"
        for name in named:
            if name in reasons:
                raise UsageError(f"'{name}' cannot be cut for this target: {reasons[name]}.")
        return reasons

    @property
    def told(self) -> dict[str, str]:
        """What a report says of it, as JSON data."""
        return {
            "target": self.target.name if self.target is not None else "any CPU",
            "here": host().name,
            "precision": self.precision,
            "widths": str(self.widths),
            "source": self.target.source if self.target is not None else "",
        }


def rounding(options: CandidateOptions, view: View, *, latency: bool = False) -> Rounding:
    """Return what widths are rounded to.

    Args:
        latency: a measured one is asked for.

    Raises:
        UsageError: there is no such target, or it does not compute in these numbers.
    """
    stored = stored_precision(view)
    target = target_named(options.target) if options.target is not None else None
    if target is not None:
        precision = target.precision_for(options.precision, stored)
        widths = Widths.on(target, precision)
    else:
        precision = options.precision or stored
        widths = Widths(INTEGERS) if for_integers(options) else Widths.of(ALIGN) if latency else Widths()
    if options.align is not None:
        widths = Widths.of(options.align)
    return Rounding(widths, precision, target)


def for_integers(options: CandidateOptions) -> bool:
    """Tell whether widths are wide for integer kernels, and nobody named them: narrow networks may have no such cut."""
    return options.precision == "int8" and options.target is None and options.align is None


def stored_precision(view: View) -> str:
    """Return the numbers that most of the weights are stored in."""
    counts: Counter[str] = Counter()
    for parameter in view.parameters.values():
        if len(parameter.dims) > 1:
            counts[STORED.get(parameter.data_type, "float32")] += prod(parameter.dims)
    return counts.most_common(1)[0][0] if counts else "float32"
