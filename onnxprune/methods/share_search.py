"""Where a search stands: the place that it is at, what it has found, and the file that keeps both."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.allocate.curve import Curve
from onnxprune.errors import UsageError
from onnxprune.files.staging import write_text

FORMAT = "onnxprune-tune"


@dataclass(frozen=True)
class SearchPoint:
    """One model of the search: the share of MACs asked for, what is left, and how near it is to the original.

    cosine, agreement: of the worst output. drop: of the user's value. latency: share left, where it was measured.
    kept: whether it keeps the bound.
    """

    asked: float
    macs: float
    params: float
    kept: bool
    cosine: float | None = None
    agreement: float | None = None
    drop: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class SearchPlace:
    """The share of MACs that is kept so far, and the step to try next; steps are halved down to the finest."""

    at: float
    step: float
    finest: float

    @property
    def share(self) -> float:
        """The share to try next."""
        return round(self.at - self.step, 6)

    @property
    def is_last(self) -> bool:
        """Whether no step is left to try."""
        return self.step < self.finest * (1 - 1e-9)

    def after(self, kept: bool) -> SearchPlace:
        """Return the place once it is known whether the bound was kept."""
        share, step = (self.share, self.step) if kept else (self.at, self.step / 2)
        return SearchPlace(share, step, self.finest)


@dataclass(eq=False)
class SearchState:
    """What was measured, kept in a file so that an interrupted search goes on.

    key: of model, data, options and bound.
    curves: what every group costs. notes: what was said about them.
    """

    path: Path | None
    key: list[Any]
    done: dict[float, SearchPoint] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def read(path: Path | None, key: list[Any]) -> SearchState:
        """Return what a file holds; nothing if there is none.

        Raises:
            UsageError: the file is of another search.
        """
        state = SearchState(path, key)
        if path is None or not path.is_file():
            return state
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["key"] != json.loads(json.dumps(key)):
                raise KeyError("key")
            state.done = {point["asked"]: SearchPoint(**point) for point in document["candidates"]}
            curves = document.get("curves", {})
            state.curves = {name: Curve(widths, np.array(errors)) for name, (widths, errors) in curves.items()}
            state.notes = list(document.get("notes", []))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"the state '{path}' is of another search (model, data, options or bound): remove it."
            ) from error
        return state

    def write(self) -> None:
        """Write the file, atomically."""
        if self.path is None:
            return
        document = {
            "format": FORMAT,
            "key": self.key,
            "candidates": [asdict(candidate) for candidate in self.done.values()],
            "curves": {name: [curve.widths, curve.errors.tolist()] for name, curve in self.curves.items()},
            "notes": self.notes,
        }
        write_text(self.path, json.dumps(document, indent=1))
