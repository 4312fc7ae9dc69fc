"""All criteria: every file of this room that registers one is loaded."""

from __future__ import annotations

import importlib

from onnxprune.score.criterion import SCORES, find, names
from onnxprune.score.spelled import spelled

__all__ = ["SCORES", "find", "names"]

for _stem in spelled():
    importlib.import_module(f"{__package__}.{_stem}")
