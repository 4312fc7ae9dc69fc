"""Who carries out pieces of work that do not need each other: this process alone, or a crew of others.

Whoever has such pieces asks `at_work()`; what a crew is made of, one room knows (`onnxprune/cluster/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

Kit = TypeVar("Kit")
Piece = TypeVar("Piece")
Value = TypeVar("Value")


class Crew(Protocol):
    """Others that work for this process."""

    @property
    def size(self) -> int:
        """How many of them there are now."""
        ...

    def map(
        self,
        work: Callable[[Kit, Piece], Value],
        kit: Kit,
        pieces: Sequence[Piece],
        name: Callable[[int], str],
        done: Callable[[int], None] = lambda number: None,
    ) -> Iterator[Value]:
        """Yield `work(kit, piece)` of every piece, in their order.

        Args:
            work: a function of a module. kit: what all pieces need; it travels to each of the crew once.
            name: number of a piece -> how errors call it. done: told how many results there are.

        Raises:
            OnnxpruneError: what a piece raised, with its name, or that nobody is left to work.
        """
        ...


_present: list[Crew] = []


def at_work() -> Crew | None:
    """Return who works for this process; None: nobody."""
    return _present[-1] if _present else None


@contextmanager
def working(crew: Crew | None) -> Iterator[None]:
    """Let a crew work for this process for a while."""
    if crew is None:
        yield
        return
    _present.append(crew)
    try:
        yield
    finally:
        _present.remove(crew)
