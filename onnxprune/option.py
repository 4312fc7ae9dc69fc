"""Classes of options say everything once: names, types, defaults, what they mean, and how the command line spells them.

Click options, keywords of the Python functions, recipes and docs/options.md are made from it. Nothing heavy is imported
here, nor where such a class is: `--help` reads them all.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass
from math import isfinite
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, ClassVar, Self, TypeVar

from onnxprune.errors import UsageError

Kind = TypeVar("Kind", bound=type)
_SAID = "onnxprune.said"
LEAST_BYTES = 1 << 20
"""Of memory that somebody gives: less is a unit that was forgotten."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an option says about itself, besides name, type and default.

    help: one line, with the default where that is not plain.
    metavar: stands for the value in the help.
    flag: as the command line spells it, where that is not the name with dashes: "--per-channel/--per-tensor".
    choices: all values there are. listed: gives them, for the help only, where finding them costs time.
    least, most: the range of a number; open: which of its ends are outside, "<", ">" or "<>".
    spelt: how its words are read: "shape", "size", "numbers", "bytes", "latency", "words" (between commas),
        "file" (a table).
    argument: it is an argument of the command, no option.
    beside: the command line's default is the output with this behind its name.
    keyword: type in the signature of functions, where that takes more than the field's type.
    found: the class finds it from others; the command line does not ask.
    untold: it changes no model, or is a path: a recipe has it, the provenance has not.
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    choices: tuple[str | int, ...] = ()
    listed: Callable[[], Iterable[str]] | None = None
    least: float | None = None
    most: float | None = None
    open: str = ""
    spelt: str = ""
    argument: bool = False
    beside: str = ""
    keyword: str = ""
    found: bool = False
    untold: bool = False


def option(default: object, help: str, **said: Any) -> Any:
    """Return a field of a dataclass with what it says about itself, see `Said`; a default of `dict` makes one."""
    metadata = {_SAID: Said(help=help, **said)}
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def said(field: dataclasses.Field[object]) -> Said:
    """Return what a field says about itself."""
    found: Said = field.metadata[_SAID] if _SAID in field.metadata else Said(help="")
    return found


def options_of(kind: type) -> list[dataclasses.Field[object]]:
    """Return the options of a class: its own before those that it has in common with others."""
    table = {field.name: field for field in dataclasses.fields(kind)}
    names = (name for base in kind.__mro__ for name in inspect.get_annotations(base) if name in table)
    return [table[name] for name in dict.fromkeys(names)]


def section_of(kind: type, name: str) -> str:
    """Return under which title the help lists an option: that of the class which has it."""
    home = next((base for base in kind.__mro__ if name in inspect.get_annotations(base)), kind)
    return str(getattr(home, "section", ""))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the value of an option that is not given."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def documented(kind: Kind) -> Kind:
    """Put what the options say about themselves into the documentation of their class."""
    lines = (f"    {field.name}: {_in_python(said(field).help)}" for field in options_of(kind))
    kind.__doc__ = "\n".join([f"{(kind.__doc__ or '').rstrip()}\n", *lines, ""])
    return kind


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the options of all methods have in common: one word may stand for several, choices and ranges hold.

    section: the title under which the help lists the options of a class.
    """

    section: ClassVar[str] = "What to do"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, about, kind = getattr(self, field.name), said(field), str(field.type)
            if kind.startswith("tuple[str, ...]"):
                object.__setattr__(self, field.name, words(value, field.name))
            elif kind.startswith("Mapping") and (value is None or isinstance(value, Mapping)):
                object.__setattr__(self, field.name, dict(value or {}))
            elif kind.startswith("str") and "float" in about.keyword and isinstance(value, int | float):
                object.__setattr__(self, field.name, str(value))  # an amount, of which the text is one spelling
            elif kind.startswith("Path") and isinstance(value, str):
                object.__setattr__(self, field.name, Path(value))
            elif about.choices and not (value is None and field.default is None):
                choose(field.name, value, about.choices)
        check_plain(self)

    @classmethod
    def of(cls, **values: object) -> Self:
        """Return options by name.

        Raises:
            UsageError: an unknown name, with the nearest that there is, or a value that makes no sense.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}."
                raise UsageError(f"{cls.refusal(name) or f'{cls.method()} has no option {name!r}; {hint}'}")
        return cls(**values)

    @classmethod
    def method(cls) -> str:
        """Return the name of the method that they belong to."""
        return cls.__name__.removesuffix("Options").lower()

    @classmethod
    def refusal(cls, name: str) -> str | None:
        """Return why there is no option of a name that others have."""
        return None

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        default, values = asdict(type(self)()), asdict(self)
        told = (field.name for field in options_of(type(self)) if not said(field).untold)
        return {name: values[name] for name in told if values[name] != default[name]}


def words(value: str | Iterable[str] | None, name: str = "") -> tuple[str, ...]:
    """Return one word or several as a tuple.

    Raises:
        UsageError: they are no words.
    """
    if value is None or isinstance(value, str):
        return (value,) if value is not None else ()
    is_list = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
    given = tuple(value) if is_list else ()
    if not is_list or not all(isinstance(word, str) for word in given):
        raise UsageError(f"{name} {_shown(value)}: give a text, or a list of them.")
    return given


def bytes_of(text: str) -> int:
    """Return the bytes that a text such as 4GB or 512MB stands for.

    Raises:
        ValueError: it stands for none, or for fewer than `LEAST_BYTES`.
    """
    word = text.strip().upper().removesuffix("B")
    unit = {"K": 10, "M": 20, "G": 30, "T": 40}.get(word[-1:], 0)
    number = float(word[:-1] if unit else word) * (1 << unit)
    if not LEAST_BYTES <= number < float("inf"):
        raise ValueError(text)
    return int(number)


def choose(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, str | int) or value not in allowed:
        raise UsageError(f"{name} '{_shown(value)}': choose one of {', '.join(map(str, allowed))}.")


def check_whole(name: str, value: object, least: float | None = None, most: float | None = None) -> None:
    """Refuse what is no whole number from the least one to the most that makes sense.

    Raises:
        UsageError: it is none.
    """
    start = f" from {int(least)}" if least is not None else ""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and int(value) < least):
        raise UsageError(f"{name} {_shown(value)}: give a whole number{start}.")
    if most is not None and int(value) > most:
        raise UsageError(f"{name} {_shown(value)}: give a whole number{start} to {int(most)}.")


def check_plain(options: object) -> None:
    """Refuse texts, switches and numbers of a class that are none, or outside of the ranges that their fields say.

    Raises:
        UsageError: one is none.
    """
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # an instance of a dataclass
        value, about, kind = getattr(options, field.name), said(field), str(field.type).removesuffix(" | None")
        if value is None or about.choices:
            continue
        if kind == "str":
            check_text(field.name, value)
        elif kind == "Path" and not isinstance(value, PurePath):
            raise UsageError(f"{field.name} {_shown(value)}: give a path.")
        elif kind == "bool" and not isinstance(value, bool):
            raise UsageError(f"{field.name} {_shown(value)}: give true or false.")
        elif kind == "int":
            check_whole(field.name, value, about.least, about.most)
        elif kind == "float":
            _check_number(field.name, value, about)


def _check_number(name: str, value: object, about: Said) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} {_shown(value)} is no number.")
    least, most, number = about.least, about.most, float(value)
    above = least is None or number > least or (number == least and "<" not in about.open)
    below = most is None or number < most or (number == most and ">" not in about.open)
    if not above or not below or not isfinite(number):
        start = "(-inf" if least is None else f"{'(' if '<' in about.open else '['}{least:g}"
        end = "inf)" if most is None else f"{most:g}{')' if '>' in about.open else ']'}"
        raise UsageError(f"{name} {number:g} is outside {start}, {end}.")


def check_text(name: str, value: object) -> None:
    """Refuse what is no text.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, str):
        raise UsageError(f"{name} {_shown(value)}: give a text.")


def _shown(value: object) -> str:
    """Return a value in a few characters, on one line."""
    text = value if isinstance(value, str) else " ".join(repr(value).split())
    return text if len(text) < 60 else f"{text[:57]}.."


def _in_python(text: str) -> str:
    """Return a help text with the names of options instead of flags."""
    return re.sub(r"--([a-z][a-z-]*)", lambda found: found[1].replace("-", "_"), text)
