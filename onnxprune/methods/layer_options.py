"""Options that methods which change single layers have in common: which layers, shapes of inputs, the seed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from onnxprune.compensate.effort import Effort
from onnxprune.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """Part of the options of a method.

    skip, only: globs over node and tensor names.
    seed: of what is drawn by chance.
    """

    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("skip", "only"):
            object.__setattr__(self, name, words(getattr(self, name)))
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return options by name.

        Raises:
            UsageError: an unknown name, with the nearest that there is, or a value that makes no sense.
        """
        return cls(**named(cls, values))

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data."""
        default = asdict(type(self)())
        return {name: value for name, value in asdict(self).items() if value != default[name]}


def named(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values if they are all named like fields of the options.

    Raises:
        UsageError: an unknown name, with the nearest that there is.
    """
    known = [option.name for option in fields(kind)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
            raise UsageError(f"{kind.__name__.removesuffix('Options').lower()} has no option '{name}'; {hint}")
    return values


def words(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """Return one word or several as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def choose(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        UsageError: it is not.
    """
    if value not in allowed:
        raise UsageError(f"{option} '{value}': choose one of {', '.join(allowed)}.")


def check_effort(effort: str | None, compensate: str | None = None, steps: int | None = None) -> None:
    """Refuse an effort that is none, or says something else than other options.

    Raises:
        UsageError: it is none, or contradicts them.
    """
    if steps is not None and compensate not in (None, "distil"):
        raise UsageError(f"steps {steps} are gradient steps, compensate {compensate} takes none; leave one out.")
    if effort is None:
        return
    found = Effort.of(effort)
    if steps is not None and found.word != "default":
        raise UsageError(f"effort {effort} and steps {steps} both say how many steps to take; leave one out.")
    if found.word == "quick" and compensate == "distil":
        raise UsageError("effort quick takes no gradient steps, compensate distil does; leave one out.")
    if found.is_long and compensate not in (None, "distil"):
        raise UsageError(f"effort {effort} is for gradient steps, compensate {compensate} takes none; leave one out.")


def require_data(effort: str | None, data: object) -> None:
    """Refuse a long effort without inputs: steps towards what the original gives on noise help nobody.

    Raises:
        UsageError: there are none.
    """
    if effort is not None and data is None and Effort.of(effort).is_long:
        raise UsageError(f"effort {effort} needs inputs of the model: give data.")
