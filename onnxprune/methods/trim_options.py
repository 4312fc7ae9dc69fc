"""What can be asked of `trim`, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.methods.trimming.spellings import Spec, Value
from onnxprune.option import Options, documented, option, words

TEXT = "text"


@documented
@dataclass(frozen=True, kw_only=True)
class TrimOptions(Options):
    """Options of `trim`. What is not named stays.

    Positions are numbers, ranges and labels: "0-3,7", "person,car", or "@FILE" with one of these a line. A tensor
    inside the model can be named in `keep` like an output. Other tokens are computed as `rare` says, and get the
    lowest score where scores are scattered.
    """

    outputs: tuple[str, ...] = option((), "Keep these outputs only.", metavar="NAME[,NAME]", spelt="words")
    keep: Mapping[str, Spec] = option(
        dict,
        "Keep these positions of an axis: classes, characters; `tokens`: those of --tokens (repeatable).",
        metavar="OUTPUT[:AXIS]=SPEC",
    )
    labels: Spec | None = option(
        None, "Names of the positions [default: those in the metadata].", metavar="@FILE", spelt="text"
    )
    labels_key: str | None = option(None, "Metadata key with the names [default: names, character, ..].", metavar="KEY")
    tokens: Mapping[str, Spec] = option(dict, "Keep these rows of the embedding of INPUT.", metavar="INPUT=SPEC")
    tokens_from: Path | None = option(None, "A text: `--tokens INPUT=text` keeps what it uses.", metavar="TEXT")
    tokenizer: Path | None = option(None, "The tokenizer.json of the model, to read it.", metavar="FILE")
    rare: str = option(
        "int8",
        "What stands for other tokens: a copy in 8 or 5.3 bits, the most similar row, one token [default: int8].",
        metavar="int8|int5|nearest|unk=ID",
    )
    scatter: tuple[str, ...] = option(
        (), "Compute scores of --tokens only, and spread them to the old width.", metavar="OUTPUT[:AXIS]"
    )
    fix: Mapping[str, Value] = option(dict, "The input is constant: a number or an .npy file.", metavar="INPUT=VALUE")
    dims: Mapping[str, int] = option(dict, "A dynamic dimension has this size.", metavar="NAME=SIZE")
    input_channels: Mapping[str, Spec] = option(dict, "Keep these channels of an input.", metavar="INPUT:AXIS=SPEC")
    gray: tuple[str, ...] = option((), "One channel instead of three equal ones.", metavar="INPUT")
    renumber: bool = option(False, "Ids count what is left: no tables in the graph.")
    input_shapes: Mapping[str, tuple[int, ...]] = option(dict, "Input -> full shape, where dynamic sizes are fixed.")
    vocabulary: int | None = option(
        None, "Ids that the tokenizer has; the embedding has as many rows or more.", found=True
    )

    def __post_init__(self) -> None:
        from onnxprune.methods.trimming.constant import read_value
        from onnxprune.methods.trimming.spec import items
        from onnxprune.methods.trimming.tiers import TIERS

        super().__post_init__()
        for name in ("keep", "tokens", "input_channels"):
            table = {key: items(spec, f"{name} {key}") for key, spec in table_of(getattr(self, name), name).items()}
            object.__setattr__(self, name, table)
        object.__setattr__(self, "fix", {k: read_value(k, v) for k, v in table_of(self.fix, "fix").items()})
        object.__setattr__(self, "dims", {k: _whole(k, v) for k, v in table_of(self.dims, "dims").items()})
        self._collect()
        if self.labels is not None:
            object.__setattr__(self, "labels", items(self.labels, "labels"))
        rare = (*TIERS, "nearest")
        if self.rare not in rare and not self.rare.startswith("unk="):
            raise UsageError(f"rare '{self.rare}': choose one of {', '.join(rare)}, unk=ID.")
        if self.scatter and not self.tokens:
            raise UsageError("scatter spreads scores of tokens: say with tokens which stay.")

    def _collect(self) -> None:
        """Let the ids of the text take the place of the word `text`, and of its files."""
        from onnxprune.methods.trimming.vocabulary import collect, size_of

        wanted = [name for name, entries in self.tokens.items() if entries == (TEXT,)]
        if bool(wanted) != bool(self.tokens_from) or bool(wanted) != bool(self.tokenizer):
            raise UsageError("tokens of a text need all three: tokens INPUT=text, tokens_from, and tokenizer.")
        if wanted and self.tokens_from is not None and self.tokenizer is not None:
            ids = collect(Path(self.tokens_from), Path(self.tokenizer))
            object.__setattr__(self, "tokens", {**self.tokens, **dict.fromkeys(wanted, ids)})
            object.__setattr__(self, "vocabulary", size_of(Path(self.tokenizer)))
            object.__setattr__(self, "tokens_from", None)
            object.__setattr__(self, "tokenizer", None)

    @property
    def asks(self) -> bool:
        """Whether anything is to go."""
        return any(getattr(self, name) for name in _WORK)

    def to_dict(self) -> dict[str, object]:
        """Return the options that differ from their defaults, as JSON data without paths."""
        return {name: _plain(value) for name, value in super().to_dict().items()}


_WORK = ("outputs", "keep", "tokens", "scatter", "fix", "dims", "input_channels", "gray")


def table_of(value: Mapping[str, Any] | Iterable[str] | str | None, name: str) -> dict[str, Any]:
    """Return a table from a mapping, or from words like NAME=VALUE."""
    if isinstance(value, Mapping):
        return dict(value)
    from onnxprune.methods.trimming.spec import split_target

    return dict(split_target(word) for word in words(value, name))


def _whole(name: str, value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"dims {name}: '{value}' is no size; give a whole number from 1.")
    return value


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value
