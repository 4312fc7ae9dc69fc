"""A process that others started ends with them, whatever ended them, also while native code runs in it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_EVERY_SECONDS = 0.5
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a process to end."""


def end_with(parent: int) -> None:
    """Let this process be killed as soon as its parent is gone; call it early, in the process that was started."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    elif hasattr(os, "getppid"):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if hasattr(os, "getppid") and os.getppid() != parent:
        os._exit(1)


def adopt() -> None:
    """Let processes whose parent goes become children of this one, so that it can wait for their end."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


task = b""
"""What a worker was started for."""


def begin(starter: int, content: bytes) -> None:
    """Begin a worker, which ends with the one that started it; a signal that asks for an end is that one's to handle.

    It stands here because hardly anything must be imported for it: until it has run, a worker knows nothing of its
    parent's end.
    """
    global task
    end_with(starter)
    for number in STOPS:
        signal.signal(number, _leave)  # unlike SIG_IGN and a mask it ends at exec: what user code starts can be ended
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    task = content


def _leave(number: int, frame: FrameType | None) -> None:
    """Leave a signal to the parent."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start processes that never hear of a signal that asks for an end, not even while they import.

    Here it waits for a moment. What is started keeps the mask: workers until they have begun, the process of
    multiprocessing that tracks their locks to its end, which comes with the last pipe to it. Killed before, by a
    SIGHUP to the whole group, it would break those pipes and every process would print a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # starting it lets two of them through
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_SECONDS)
    os._exit(1)
