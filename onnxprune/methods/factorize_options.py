"""What can be asked of `factorize`, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.hardware.target import target_named, target_names
from onnxprune.methods.compensate_options import EFFORT, EFFORTS, check_effort
from onnxprune.methods.layer_options import LayerOptions
from onnxprune.option import documented, option

DEFAULT_PARAMS = 0.5
TARGETS = ("params", "macs", "energy")
SHARE: dict[str, Any] = {"metavar": "R", "least": 0, "most": 1, "open": "<>"}


@documented
@dataclass(frozen=True, kw_only=True)
class FactorizeOptions(LayerOptions):
    """Options of `factorize`. At most one target; without one it is `params=0.5`.

    By energy, every layer gets the least rank for it. A long effort adds gradient steps to the closed form.
    """

    params: float | None = option(None, "Share of the parameters that is left [default: 0.5].", **SHARE)
    macs: float | None = option(None, "Share of the multiply-adds that is left.", **SHARE)
    energy: float | None = option(
        None, "Share of what each layer gives that its factors keep.", **{**SHARE, "metavar": "E"}
    )
    align: int | None = option(
        None, "Ranks are multiples of N [default: 8 from rank 64, 4 from 32].", metavar="N", least=1
    )
    target: str | None = option(None, "What the result will run on.", metavar="NAME", listed=target_names)
    whiten: bool | None = option(None, "Nearest on the inputs of --data, or as matrices [default: with --data].")
    refit: bool | None = option(None, "Fit last factors to what the original gave [default: with --data].")
    effort: str | None = option(None, EFFORT, metavar=EFFORTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_effort(self.effort)
        if self.target is not None:
            target_named(self.target)
        given = [name for name in TARGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are given; a factorization has one target, leave the others out.")
        for name in given:
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name} {value:g} is outside (0, 1).")

    @property
    def budget(self) -> tuple[str, float]:
        """Name and value of what is asked for."""
        for name in TARGETS:
            value = getattr(self, name)
            if value is not None:
                return name, float(value)
        return "params", DEFAULT_PARAMS

    @property
    def multiple(self) -> int | None:
        """What ranks are multiples of: what is asked for, or what the target wants; None: as usual."""
        if self.align is not None or self.target is None:
            return self.align
        target = target_named(self.target)
        return target.multiple[target.precision_for(None, "float32")][-1][1]

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data, with the target."""
        return {self.budget[0]: self.budget[1], **super().to_dict()}
