"""What can be asked of `factorize`, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import LayerOptions, check_effort

DEFAULT_PARAMS = 0.5
TARGETS = ("params", "macs", "energy")


@dataclass(frozen=True, kw_only=True)
class FactorizeOptions(LayerOptions):
    """Options of `factorize`. At most one target; without one it is `params=0.5`.

    params, macs: share of the model's parameters or multiply-accumulates that is left, (0, 1).
    energy: share of what a layer gives that its factors keep, (0, 1): every layer gets the least rank for it.
    align: ranks are multiples of it; None: 8 for layers of rank 64 or more, 4 from 32, else 1.
    whiten: nearest on the inputs of the data (True) or as matrices (False); None: True with data.
    effort: "quick", "default": the closed form; "thorough" or a time such as "30m" adds gradient steps (`finetune`).
    refit: fit the last factor of each layer to what the original gave, layer by layer; None: with data.
    """

    params: float | None = None
    macs: float | None = None
    energy: float | None = None
    align: int | None = None
    whiten: bool | None = None
    refit: bool | None = None
    effort: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_effort(self.effort)
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given; a factorization has one target, leave the others out.")
        for name in given:
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name} {value:g} is outside (0, 1).")
        if self.align is not None and self.align < 1:
            raise UsageError(f"align {self.align}: give a whole number from 1.")

    @property
    def target(self) -> tuple[str, float]:
        """Name and value of what is asked for."""
        for name in TARGETS:
            value = getattr(self, name)
            if value is not None:
                return name, float(value)
        return "params", DEFAULT_PARAMS

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data, with the target."""
        return {**super().to_dict(), self.target[0]: self.target[1]}
