"""Code of the user, called so that it cannot end the command: whatever it raises becomes an error of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from onnxprune.errors import DataError, Terminated

_END = object()


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of the user returns.

    Args:
        what: how an error begins, such as "data.py:feeds raised".

    Raises:
        DataError: the function raises anything but KeyboardInterrupt, SystemExit and our own errors included: an exit
            code of the user's would be taken for ours.
    """
    try:
        return function(*arguments)
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:
        raise DataError(f"{what} {type(error).__name__}: {_text(error)}") from error


def iterate(what: str, source: object) -> Iterator[object]:
    """Yield the items of an iterable of the user, or of a reader with `get_next` up to its first None.

    Raises:
        DataError: it raises, at its beginning or on the way.
    """
    if hasattr(source, "get_next"):
        while (item := call(what, source.get_next)) is not None:
            yield item
        return
    stream = call(what, iter, source)
    while (item := call(what, next, stream, _END)) is not _END:
        yield item


def _text(error: BaseException) -> str:
    try:
        return str(error) or "without a text"
    except BaseException:
        return "without a text that can be read"
