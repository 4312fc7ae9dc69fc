"""Files that lie beside a model and speak of its sizes: `genai_config.json` follows the model to its new place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxprune.files.identity import identity
from onnxprune.files.staging import Staging
from onnxprune.graph.genai import with_counts
from onnxprune.graph.model import Model
from onnxprune.report import Report

CONFIG = "genai_config.json"


def config_of(path: Path | None) -> Path | None:
    """Return the configuration beside the file of a model, None where there is none."""
    config = path.parent / CONFIG if path is not None else None
    return config if config is not None and config.is_file() else None


def stage_config(
    path: Path | None, target: Path, source: Model, result: Model, staging: Staging, report: Report | None = None
) -> None:
    """Write, together with the model, the configuration with its counts where they changed, and say so.

    One that cannot be read or cannot say what the model has is left alone, with a warning.

    Args:
        path: file of the source. target: file of the result.
    """
    given, report = config_of(path), report or Report("save")
    if given is None or path is None:
        return
    try:
        config: Any = json.loads(given.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        report.warn(f"'{given}' cannot be read ({reason}): if it is of this model, change its counts yourself")
        return
    if not isinstance(config, dict):
        return
    done = with_counts(config, path.name, source, result, target.name)
    if done.config is None:
        for note in done.notes:
            report.warn(f"'{given}' was not taken along: {note}")
        return
    place = _place(given, target)
    staging.text(place, json.dumps(done.config, indent=4, ensure_ascii=False) + "\n")
    changed = done.changed or {}
    told = {key: {"before": old, "after": new} for key, (old, new) in changed.items()}
    report.details["genai_config"] = {"path": str(place), "changed": told}
    said = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items())
    name = "" if place.name == CONFIG else f"; it takes the place of {CONFIG} in the folder of this model"
    for text in (f"'{place}' was written for the new sizes: {said}{name}", *(f"'{place}': {n}" for n in done.notes)):
        report.warn(text)


def _place(given: Path, target: Path) -> Path:
    """Return where it goes: under its own name unless it would take the place of that of another model."""
    path = target.parent / CONFIG
    if identity(path) != identity(given) and (not path.exists() or _names(path, target.name)):
        return path
    return target.with_name(f"{target.stem}-{CONFIG}")


def _names(path: Path, file: str) -> bool:
    try:
        return json.dumps(file) in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
