"""The value of a model that the user's function measures."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxprune.errors import DataError, Terminated, UsageError
from onnxprune.graph.session import open_session
from onnxprune.processes.user_code import call

Evaluate = Callable[..., Any]


def evaluate(function: Evaluate, path: Path, name: str) -> float:
    """Return the user's value of a model.

    The function gets the path as a string, or an onnxruntime session if its first argument is called `session` or
    `sess`; it returns a number, or a dict that has one under "value".

    Raises:
        DataError: it raises, or does not return a finite number.
    """
    raised = f"--eval {name} raised"
    if _wants_session(function):
        with open_session(path) as session:
            result = call(raised, function, session.native)
    else:
        result = call(raised, function, str(path))
    value = call(raised, result.get, "value") if isinstance(result, Mapping) else result
    try:
        number = float(value)
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:
        text = call(raised, str, result)
        raise DataError(f"--eval {name} returned {text[:80]!r}, a finite number is needed.") from error
    if not math.isfinite(number):
        raise DataError(f"--eval {name} returned {number}, a finite number is needed.")
    return number


def _wants_session(function: Evaluate) -> bool:
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    if first is None:
        raise UsageError("the function of --eval takes no argument; it must take the path of a model.")
    return first.name in ("session", "sess") or "InferenceSession" in str(first.annotation)
