"""What can be asked of `sparsify`, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.errors import UsageError
from onnxprune.methods.compensate_options import EFFORT, EFFORTS, check_effort
from onnxprune.methods.layer_options import LayerOptions
from onnxprune.option import documented, option

if TYPE_CHECKING:
    from onnxprune.methods.sparsity.patterns import Pattern

DEFAULT_SPARSITY = 0.5


@documented
@dataclass(frozen=True, kw_only=True)
class SparsifyOptions(LayerOptions):
    """Options of `sparsify`. A pattern N:M brings its share of zeros with it.

    A long effort adds gradient steps to the closed form.
    """

    sparsity: float | None = option(
        None, "Share of the weights that become zero [default: 0.5].", metavar="S", least=0, most=1, open="<>"
    )
    pattern: str | None = option(
        None, "2:4: of 4 inputs 2 stay; block:4x1: 4 outputs of 1 input.", metavar="N:M|block:RxC"
    )
    scope: str = option(
        "uniform",
        "How zeros are spread over the layers: the same share, one threshold, or LAMP, ERK [default: uniform].",
        choices=("uniform", "global", "lamp", "erk"),
    )
    score: str | None = option(
        None,
        "Which weights go: by what can be made up for (obc), by |w| times the input, by |w|, by chance [default: obc "
        "with --data, else magnitude].",
        choices=("obc", "wanda", "magnitude", "random"),
    )
    reconstruct: bool | None = option(None, "Change the other weights to make up for the zeros [default: with --data].")
    storage: str = option(
        "dense",
        "Write a usual file, or sparse_initializer where that is smaller [default: dense].",
        choices=("dense", "sparse"),
    )
    effort: str | None = option(None, EFFORT, metavar=EFFORTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_effort(self.effort)
        fixed = self.form.sparsity is not None
        if fixed and self.sparsity is not None:
            raise UsageError(f"pattern {self.pattern} fixes the share of zeros; leave sparsity out.")
        if fixed and self.scope != "uniform":
            raise UsageError(f"pattern {self.pattern} gives every layer the same share; leave scope {self.scope} out.")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise UsageError(f"sparsity {self.sparsity:g} is outside (0, 1); it is the share of weights made zero.")
        if self.score == "obc" and self.reconstruct is False:
            raise UsageError("score obc chooses while it reconstructs; leave --no-reconstruct out or take wanda.")

    @property
    def form(self) -> Pattern:
        """The pattern, read."""
        from onnxprune.methods.sparsity.patterns import parse

        return parse(self.pattern)

    @property
    def level(self) -> float:
        """Share of zeros."""
        fixed = self.form.sparsity
        return fixed if fixed is not None else DEFAULT_SPARSITY if self.sparsity is None else self.sparsity

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data."""
        values = super().to_dict()
        return values if self.pattern and self.form.m else {**values, "sparsity": self.level}
