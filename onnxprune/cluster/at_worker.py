"""What a worker does: it keeps what was sent, opens a kit when the first piece needs it, and carries pieces out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from distributed import Worker, WorkerPlugin

from onnxprune.cluster.luggage import unpacked
from onnxprune.errors import ClusterError
from onnxprune.version import __version__

Piece = TypeVar("Piece")
Value = TypeVar("Value")

_arrived: dict[str, bytes] = {}
_opened: dict[str, object] = {}
_one_at_a_time = threading.Lock()


class Delivery(WorkerPlugin):  # type: ignore[misc]  # distributed has few types
    """Content that every worker gets once, those that come later too."""

    idempotent = True

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content

    def setup(self, worker: Worker) -> None:
        """Keep the content."""
        _arrived[self.name] = self.content
        self.content = b""

    def teardown(self, worker: Worker) -> None:
        """Forget it, and what was made of it."""
        _arrived.pop(self.name, None)
        _opened.pop(self.name, None)


def carry_out(version: str, kit: str, work: Callable[[object, Piece], Value], piece: Piece) -> Value:
    """Return what the work makes of a piece; pieces of a process wait for each other, sessions take all its threads.

    Raises:
        ClusterError: this is another version of the package.
        OnnxpruneError: what the work raises.
    """
    check_version(version)
    with _one_at_a_time:
        if kit not in _opened:
            _opened[kit] = unpacked(_arrived[kit], _arrived)
        return work(_opened[kit], piece)


def check_version(version: str) -> None:
    if version != __version__:
        raise ClusterError(f"a worker has onnxprune {__version__}, this command is {version}; install the same there.")
