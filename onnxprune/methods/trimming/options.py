"""What can be asked of `trim`, checked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.layer_options import named, words
from onnxprune.methods.trimming.constant import Value, read_value
from onnxprune.methods.trimming.spec import Spec, items, split_target
from onnxprune.methods.trimming.tiers import TIERS
from onnxprune.methods.trimming.vocabulary import collect, size_of

TEXT = "text"
RARE = (*TIERS, "nearest")


@dataclass(frozen=True, kw_only=True)
class TrimOptions:
    """Options of `trim`. What is not named stays.

    outputs: outputs that stay; nodes, weights and inputs that only the others needed go too.
    keep: "OUTPUT" or "OUTPUT:AXIS" -> positions that stay: numbers, ranges, labels ("0-3,7", "person,car", "@FILE"), or
        "tokens": those of the one `tokens` entry. A tensor inside the model can be named like an output.
    labels: names of the positions of the axes in `keep`, as "@FILE" or a list; None: those in the model's metadata.
    labels_key: metadata key that holds the names; None: where exporters keep them.
    tokens: input -> ids whose rows of the embedding stay; "text": those that `tokens_from` uses.
    tokens_from, tokenizer: a text, and the tokenizer.json of the model (extra `text`).
    rare: what stands for the other ids: "int8" (a copy in 8 bits), "int5" (in 5.33 bits), "nearest" (most similar
        row), "unk=ID".
    scatter: "OUTPUT" or "OUTPUT:AXIS": scores over the vocabulary are computed for `tokens` only and spread to the old
        width, the lowest number elsewhere.
    fix: input -> value that it always has: a number, nested lists, or the path of an .npy file.
    dims: dynamic dimension -> size.
    input_channels: "INPUT:AXIS" -> positions that stay.
    gray: inputs whose three channels become one, exact where they are equal.
    renumber: ids count what is left; no table in the graph turns them into the old ones.
    input_shapes: graph input -> full shape, where dynamic sizes need to be fixed for the analysis.
    vocabulary: ids that the tokenizer has, found from it; the embedding must have as many rows or more.
    """

    outputs: tuple[str, ...] = ()
    keep: Mapping[str, Spec] = field(default_factory=dict)
    labels: Spec | None = None
    labels_key: str | None = None
    tokens: Mapping[str, Spec] = field(default_factory=dict)
    tokens_from: Path | None = None
    tokenizer: Path | None = None
    rare: str = "int8"
    scatter: tuple[str, ...] = ()
    fix: Mapping[str, Value] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    input_channels: Mapping[str, Spec] = field(default_factory=dict)
    gray: tuple[str, ...] = ()
    renumber: bool = False
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        for name in ("outputs", "scatter", "gray"):
            object.__setattr__(self, name, words(getattr(self, name)))
        for name in ("keep", "tokens", "input_channels"):
            table = {key: items(spec, f"{name} {key}") for key, spec in table_of(getattr(self, name)).items()}
            object.__setattr__(self, name, table)
        object.__setattr__(self, "fix", {k: read_value(k, v) for k, v in table_of(self.fix).items()})
        object.__setattr__(self, "dims", {k: _whole(k, v) for k, v in table_of(self.dims).items()})
        object.__setattr__(self, "input_shapes", dict(self.input_shapes or {}))
        self._collect()
        if self.labels is not None:
            object.__setattr__(self, "labels", items(self.labels, "labels"))
        if self.rare not in RARE and not self.rare.startswith("unk="):
            raise UsageError(f"rare '{self.rare}': choose one of {', '.join(RARE)}, unk=ID.")
        if self.scatter and not self.tokens:
            raise UsageError("scatter spreads scores of tokens: say with tokens which stay.")

    def _collect(self) -> None:
        """Let the ids of the text take the place of the word `text`, and of its files."""
        wanted = [name for name, entries in self.tokens.items() if tuple(entries) == (TEXT,)]  # type: ignore[arg-type]
        if bool(wanted) != bool(self.tokens_from) or bool(wanted) != bool(self.tokenizer):
            raise UsageError("tokens of a text need all three: tokens INPUT=text, tokens_from, and tokenizer.")
        if wanted and self.tokens_from is not None and self.tokenizer is not None:
            ids = collect(Path(self.tokens_from), Path(self.tokenizer))
            object.__setattr__(self, "tokens", {**self.tokens, **dict.fromkeys(wanted, ids)})
            object.__setattr__(self, "vocabulary", size_of(Path(self.tokenizer)))
            object.__setattr__(self, "tokens_from", None)
            object.__setattr__(self, "tokenizer", None)

    @classmethod
    def of(cls, **values: Any) -> TrimOptions:
        """Return options by name.

        Raises:
            UsageError: an unknown name, or a value that makes no sense.
        """
        return cls(**named(cls, values))

    @property
    def asks(self) -> bool:
        """Whether anything is to go."""
        return any(getattr(self, option.name) for option in fields(self) if option.name in _WORK)

    def to_dict(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        default = asdict(TrimOptions())
        values = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {name: _plain(value) for name, value in values.items()}


_WORK = ("outputs", "keep", "tokens", "scatter", "fix", "dims", "input_channels", "gray")


def table_of(value: Mapping[str, Any] | Sequence[str] | str | None) -> dict[str, Any]:
    """Return a table from a mapping, or from words like NAME=VALUE."""
    if isinstance(value, Mapping):
        return dict(value)
    return dict(split_target(word) for word in words(value))  # type: ignore[arg-type]


def _whole(name: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"dims {name}: '{value}' is no size; give a whole number from 1.")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value
