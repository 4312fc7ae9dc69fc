"""Options that methods which change single layers have in common: which layers, shapes of inputs, the seed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

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
