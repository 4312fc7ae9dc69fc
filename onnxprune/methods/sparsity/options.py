"""What can be asked of `sparsify`, checked once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.sparsity.patterns import Pattern, parse
from onnxprune.methods.sparsity.shares import SCOPES

DEFAULT_SPARSITY = 0.5
SCORES = ("obc", "magnitude", "wanda", "random")
STORAGES = ("dense", "sparse")


@dataclass(frozen=True)
class SparsifyOptions:
    """Options of `sparsify`.

    sparsity: share of zeros in the weights that take part, (0, 1); a pattern N:M brings its own. Default 0.5.
    pattern: "2:4" (of 4 neighbours along the contraction 2 stay), "block:4x1" (4 outputs x 1 input), None: free.
    scope: how the zeros are spread over the layers, out of "uniform", "global", "lamp", "erk".
    score: which weights go: "obc" (second moments of the inputs and what can be made up for; default with data),
        "wanda" (|w| times the norm of the input), "magnitude" (default without data) or "random".
    reconstruct: change the weights that stay to make up for the zeros; None: with data.
    storage: "dense", or "sparse" (`sparse_initializer`, where that is smaller).
    skip, only: globs over node and tensor names.
    seed: of the random score and the choice of rows.
    """

    sparsity: float | None = None
    pattern: str | None = None
    scope: str = "uniform"
    score: str | None = None
    reconstruct: bool | None = None
    storage: str = "dense"
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("skip", "only"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))
        _choose("scope", self.scope, tuple(SCOPES))
        _choose("storage", self.storage, STORAGES)
        if self.score is not None:
            _choose("score", self.score, SCORES)
        fixed = self.form.sparsity is not None
        if fixed and self.sparsity is not None:
            raise UsageError(f"pattern {self.pattern} fixes the share of zeros; leave sparsity out.")
        if fixed and self.scope != "uniform":
            raise UsageError(f"pattern {self.pattern} gives every layer the same share; leave scope {self.scope} out.")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise UsageError(f"sparsity {self.sparsity:g} is outside (0, 1); it is the share of weights made zero.")
        if self.score == "obc" and self.reconstruct is False:
            raise UsageError("score obc chooses while it reconstructs; leave --no-reconstruct out or take wanda.")

    @staticmethod
    def of(**values: Any) -> SparsifyOptions:
        """Return options by name.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        check_names("sparsify", values, [option.name for option in fields(SparsifyOptions)])
        return SparsifyOptions(**values)

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
        default = asdict(SparsifyOptions())
        values = {name: value for name, value in asdict(self).items() if value != default[name]}
        return values if self.pattern and self.form.m else {**values, "sparsity": self.level}


def check_names(command: str, values: Mapping[str, Any], known: list[str]) -> None:
    """Refuse a name that is no option.

    Raises:
        UsageError: there is one, with the nearest that is.
    """
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
            raise UsageError(f"{command} has no option '{name}'; {hint}")


def _choose(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} '{value}': choose one of {', '.join(allowed)}.")
