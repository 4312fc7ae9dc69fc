"""How many threads linear algebra takes: one, so that sums are made in the same order on every machine.

Sums in another order differ in their last bits, and a choice of channels or a held-out error near a tie with them. On a
busy machine several threads also wait for each other up to 50 times longer than they work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


def one_thread() -> AbstractContextManager[object]:
    """Bound the linear algebra of numpy, and of scipy where it is loaded already, to one thread."""
    pools = _pools("scipy.linalg" in sys.modules)
    return pools.limit(limits=1, user_api="blas")  # type: ignore[no-any-return]  # threadpoolctl has no types


def on_one_thread(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Return the function with all its linear algebra on one thread."""

    @wraps(function)
    def bounded(*given: Given.args, **named: Given.kwargs) -> Result:
        import_module("scipy.linalg")  # what is loaded within would bring threads that nothing has bounded
        with one_thread():
            return function(*given, **named)

    return bounded


@cache
def _pools(with_scipy: bool) -> Any:
    """Return the libraries that are loaded: scipy brings its own, when it is imported."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
