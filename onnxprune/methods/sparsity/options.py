"""What can be asked of `sparsify`, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import LayerOptions, check_effort, choose
from onnxprune.methods.sparsity.patterns import Pattern, parse
from onnxprune.methods.sparsity.shares import SCOPES

DEFAULT_SPARSITY = 0.5
SCORES = ("obc", "magnitude", "wanda", "random")
STORAGES = ("dense", "sparse")


@dataclass(frozen=True, kw_only=True)
class SparsifyOptions(LayerOptions):
    """Options of `sparsify`.

    sparsity: share of zeros in the weights that take part, (0, 1); a pattern N:M brings its own. Default 0.5.
    pattern: "2:4" (of 4 neighbours along the contraction 2 stay), "block:4x1" (4 outputs x 1 input), None: free.
    scope: how the zeros are spread over the layers, out of "uniform", "global", "lamp", "erk".
    score: which weights go: "obc" (second moments of the inputs and what can be made up for; default with data),
        "wanda" (|w| times the norm of the input), "magnitude" (default without data) or "random".
    reconstruct: change the weights that stay to make up for the zeros; None: with data.
    effort: "quick", "default": the closed form; "thorough" or a time such as "30m" adds gradient steps (`finetune`).
    storage: "dense", or "sparse" (`sparse_initializer`, where that is smaller).
    """

    sparsity: float | None = None
    pattern: str | None = None
    scope: str = "uniform"
    score: str | None = None
    reconstruct: bool | None = None
    storage: str = "dense"
    effort: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_effort(self.effort)
        choose("scope", self.scope, tuple(SCOPES))
        choose("storage", self.storage, STORAGES)
        if self.score is not None:
            choose("score", self.score, SCORES)
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
        return parse(self.pattern)

    @property
    def level(self) -> float:
        """Share of zeros."""
        fixed = self.form.sparsity
        return fixed if fixed is not None else DEFAULT_SPARSITY if self.sparsity is None else self.sparsity

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data."""
        values = super().to_dict()
        return values if self.pattern and self.form.m else {**values, "sparsity": self.level}
