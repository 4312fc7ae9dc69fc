"""The steps that a recipe can have: every method that has a file, a function and options of its name.

`methods/prune.py` with `prune` and `PruneOptions` makes the step `prune`. What a function asks for besides the model
and the options (data, feeds, a judge, threads ..) it is given by the names of its arguments.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from onnxprune import methods
from onnxprune.errors import UsageError


@dataclass(frozen=True)
class Method:
    """A method: its function and the class of its options."""

    name: str
    function: Callable[..., Any]
    options: type[Any]

    def run(self, model: Any, options: Any, offered: Mapping[str, Callable[[], Any]]) -> Any:
        """Call the function with those of the offered values that it takes; the others are not made."""
        wanted = inspect.signature(self.function).parameters
        return self.function(model, options, **{name: make() for name, make in offered.items() if name in wanted})


@dataclass(frozen=True)
class Step:
    """A method with its options, and limits of its own that take the place of the recipe's."""

    method: Method
    options: Any
    limits: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Name and options as plain data, without paths."""
        return {"command": self.method.name, **self.options.to_dict()}


@cache
def method_names() -> tuple[str, ...]:
    """Return the files of methods, in the order of the alphabet; which of them are steps `find` tells."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(methods.__path__) if not item.ispkg))


@cache
def find(name: str) -> Method | None:
    """Return the method of that name, None if there is none."""
    if name not in method_names():
        return None
    module = importlib.import_module(f"{methods.__name__}.{name}")
    function, options = getattr(module, name, None), getattr(module, f"{name.capitalize()}Options", None)
    if not callable(function) or not inspect.isclass(options) or not hasattr(options, "to_dict"):
        return None
    return Method(name, cast(Callable[..., Any], function), options)


@cache
def known() -> dict[str, Method]:
    """Return all methods by name."""
    return {name: method for name in method_names() if (method := find(name)) is not None}


def step(name: str, limits: Mapping[str, float] | None = None, **options: Any) -> Step:
    """Return a step from Python.

    Raises:
        UsageError: there is no such method or option, or a value makes no sense.
    """
    method = known().get(name)
    if method is None:
        raise UsageError(f"there is no step '{name}'; there are {', '.join(known())}.")
    try:
        return Step(method, method.options(**options), dict(limits or {}))
    except TypeError as error:
        raise UsageError(f"step {name}: {error}.") from error
