"""Ratios of single groups from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from onnxprune.errors import UsageError


def read_ratios(path: str | Path) -> dict[str, float]:
    """Read a table of patterns and ratios: `{"glob over node, tensor or group names": ratio, ..}`, JSON or YAML.

    Raises:
        UsageError: the file cannot be read, is no such table, or holds a ratio outside [0, 1).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"ratios file '{path}': cannot be read ({error}).") from error
    table = _parse(text, Path(path))
    if not isinstance(table, dict):
        raise UsageError(f"ratios file '{path}': give a table of patterns and ratios, as in {{\"layer1*\": 0.3}}.")
    return checked_ratios(table, f"ratios file '{path}'")


def checked_ratios(table: Mapping[str, object], origin: str) -> dict[str, float]:
    """Return the table with its values as numbers.

    Raises:
        UsageError: a ratio is no number in [0, 1).
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{origin} {table!r}: give a table of name patterns and the shares removed.")
    ratios: dict[str, float] = {}
    for pattern, ratio in table.items():
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise UsageError(
                f"{origin}: '{pattern}' has ratio {ratio!r}; give the share removed, from 0 up to below 1."
            )
        ratios[str(pattern)] = float(ratio)
    return ratios


def _parse(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if path.suffix == ".json":
            raise UsageError(f"ratios file '{path}': is not JSON ({error}).") from error
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore]  # its stubs are another package
    except ImportError as error:
        raise UsageError(
            f"ratios file '{path}': reading YAML needs the package 'pyyaml'; install it or give JSON."
        ) from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"ratios file '{path}': is neither JSON nor YAML ({error}).") from error
