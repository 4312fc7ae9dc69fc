"""The workers of a Dask scheduler as a crew. What a worker that dies had in hand is done again by another one."""

from __future__ import annotations

import hashlib
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TypeVar, cast

from distributed import Client, Future, KilledWorker, wait

from onnxprune.cluster.at_worker import Delivery, carry_out
from onnxprune.cluster.luggage import packed
from onnxprune.errors import ClusterError, OnnxpruneError, UsageError
from onnxprune.version import __version__

Kit = TypeVar("Kit")
Piece = TypeVar("Piece")
Value = TypeVar("Value")
LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""So long it waits for a worker to come where there is none."""
TRIES = 5
KITS = 4
"""The last ones are known without being packed again: a kit is asked for at every step."""
AHEAD = 2
"""Pieces a worker that are under way at a time: results wait at the workers until it is their turn."""


class DaskCrew:
    """Sends kits once to every worker, then piece after piece."""

    def __init__(self, client: Client, where: str) -> None:
        self._client, self._where = client, where
        self._sent: dict[str, None] = {}
        self._kits: list[tuple[object, str]] = []

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def map(
        self,
        work: Callable[[Kit, Piece], Value],
        kit: Kit,
        pieces: Sequence[Piece],
        name: Callable[[int], str],
        done: Callable[[int], None] = lambda number: None,
    ) -> Iterator[Value]:
        """Yield what the work makes of every piece, in their order.

        Raises:
            ClusterError: the scheduler is gone, or no worker is left.
            OnnxpruneError: what a piece raised, with its name.
            UsageError: the kit cannot be sent.
        """
        key = next((key for known, key in self._kits if known is kit), None) or self._deliver(kit)
        stem, left = f"{work.__name__}-{uuid.uuid4().hex}", iter(enumerate(pieces))
        going: deque[tuple[int, Future]] = deque()
        try:
            while True:
                while len(going) < AHEAD * self.size + 1 and (following := next(left, None)) is not None:
                    number, piece = following
                    going.append((number, self._submit(work, key, piece, f"{stem}-{number}")))
                if not going:
                    return
                number, future = going.popleft()
                found = cast(Value, self._result(future, name(number)))
                future.release()
                done(number + 1)
                yield found
        finally:
            for _, future in going:
                future.cancel()

    def forget(self) -> None:
        """Let workers forget what was sent to them."""
        with suppress(OSError):  # a worker that died a moment ago, or the scheduler: what they knew is gone, too
            for key in self._sent:
                self._client.unregister_worker_plugin(key)
        self._sent.clear()

    def _submit(self, work: Callable[[Kit, Piece], Value], key: str, piece: Piece, name: str) -> Future:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pieces that are large
            return self._client.submit(carry_out, __version__, key, work, piece, key=name, pure=False)

    def _deliver(self, kit: object) -> str:
        try:
            content, parts = packed(kit)
        except Exception as error:  # pickling raises whatever it meets
            raise UsageError(
                f"what the work needs cannot be sent to workers ({error}); a function of yours must stand in a file."
            ) from error
        key = hashlib.sha256(content).hexdigest()
        for name, part in (*parts.items(), (key, content)):
            if name not in self._sent:
                self._send(name, part)
                self._sent[name] = None
        self._kits = [*self._kits[1 - KITS :], (kit, key)]
        return key

    def _send(self, name: str, part: bytes) -> None:
        """Bring content to all workers; one that dies meanwhile breaks the connection, and it is sent again."""
        for again in range(TRIES):
            try:
                self._client.register_plugin(Delivery(name, part), name=name)
            except OSError as error:
                if self._client.status != "running" or again == TRIES - 1:
                    raise ClusterError(f"the scheduler at '{self._where}' is gone; nothing was written.") from error
                time.sleep(again + 1)
            else:
                return

    def _result(self, future: Future, name: str) -> object:
        lonely = None
        while not future.done():
            try:
                with self._client.as_current():
                    wait([future], timeout=LOOK_SECONDS)
            except TimeoutError:
                if self._client.status != "running":
                    raise ClusterError(f"the scheduler at '{self._where}' is gone; nothing was written.") from None
                lonely = self._alone_since(lonely)
        try:
            return future.result()
        except OnnxpruneError as error:
            raise type(error)(f"{name}: {error}") from error
        except KilledWorker as error:
            raise ClusterError(
                f"{name}: the workers that took it died, one after the other (perhaps of memory); see their logs."
            ) from error
        except CancelledError as error:
            raise ClusterError(f"the scheduler at '{self._where}' is gone; nothing was written.") from error
        except Exception as error:
            raise ClusterError(f"{name}: a worker failed ({type(error).__name__}: {error}).") from error

    def _alone_since(self, since: float | None) -> float | None:
        """Return since when there has been no worker, None while there is one.

        Raises:
            ClusterError: for too long.
        """
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            return None
        now = time.monotonic()
        if since is not None and now - since > PATIENCE_SECONDS:
            raise ClusterError(
                f"no worker is left at '{self._where}' for {PATIENCE_SECONDS:.0f} seconds; start some (dask worker)."
            )
        return now if since is None else since
