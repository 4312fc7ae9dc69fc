"""A command runs in a process of its own, and a small one watches it.

What happens inside cannot be caught there: a segmentation fault of a native library, memory that runs out, a signal
while native code runs, user code that ends the process. The watcher turns each into one line and an exit code, and
removes the drafts. It is forked before anything is imported that is large or has threads: 3 ms.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from onnxprune.errors import Terminated
from onnxprune.files import owner
from onnxprune.files.shown import one_line
from onnxprune.processes import journal, memory, parent

GRACE_SECONDS = 1.2
"""So long a command may clean up after it was told to end."""

LOOK_SECONDS, OTHERS_SECONDS = 0.2, 0.5
FAILED = 2
STOPS = parent.STOPS


def supervised(work: Callable[[], None]) -> None:
    """Do the work, which ends with SystemExit, in a process that is watched; where that cannot be, in this one.

    Raises:
        SystemExit: with the exit code of the work, 2 where it was ended from outside, 128 + number after a signal.
    """
    alone = threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    if not hasattr(os, "fork") or not alone or sys.gettrace() is not None:
        handle_stops()
        work()
        return
    with tempfile.TemporaryFile() as notes:
        ours, theirs = os.pipe()
        for end in (ours, theirs):
            os.set_blocking(end, False)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        watcher = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # both sides are ready before a signal reaches one
        number = os.fork()
        if number == 0:
            os.close(ours)
            _work(work, watcher, os.dup(notes.fileno()), theirs)
            return
        sys.exit(_Watch(number, notes.fileno(), ours, theirs).code())


def handle_stops() -> None:
    """Let the signals that ask for an end raise an exception once; further ones change nothing."""
    for number in STOPS:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


def _work(work: Callable[[], None], watcher: int, notes: int, bell: int) -> None:
    """Do the work in the new process. A signal rings the bell at once, also while native code runs."""
    parent.end_with(watcher)
    journal.write_to(notes)
    handle_stops()
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    code: object = 0
    try:
        work()
    except SystemExit as error:
        code = error.code
        raise
    except BaseException:
        code = 1
        raise
    finally:
        journal.note("exit", str(code if isinstance(code, int) else int(code is not None)))


def _forget() -> None:
    """Leave a process that user code forks alone: its signals and its end are none of the watcher's."""
    journal.write_to(None)
    signal.set_wakeup_fd(-1)
    for number in STOPS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@dataclass
class _Watch:
    """The side of the watcher.

    bell: the number of a signal is read from it when this process or the other one gets it.
    """

    child: int
    notes: int
    bell: int
    ringer: int
    stage: str = ""
    limit: memory.Limit = field(default_factory=memory.Limit)
    drafts: list[Path] = field(default_factory=list)
    written: bool = False
    ended: int | None = None
    stopped: int | None = None
    killed_at: float | None = None
    too_large: int = 0
    _offset: int = 0

    def code(self) -> int:
        """Wait until the child has ended, and return the exit code of the command."""
        for number in (*STOPS, signal.SIGCHLD):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self.ringer, warn_on_full_buffer=False)
        parent.adopt()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        owner.sweep(Path(tempfile.gettempdir()))
        while (status := self._status()) is None:
            select.select([self.bell], [], [], LOOK_SECONDS)
            self._hear()
            self._look()
        self._read()
        if self.stopped is not None or self.ended is None:
            self._wait_for_others()
        for draft in self.drafts:
            owner.remove_own(draft)
        owner.sweep(Path(tempfile.gettempdir()))
        return self._told(os.waitstatus_to_exitcode(status))

    def _wait_for_others(self) -> None:
        """Wait a moment for the workers of the child, which end with it: only then their folders can go."""
        end = time.monotonic() + OTHERS_SECONDS
        with suppress(ChildProcessError):
            while time.monotonic() < end:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.01)

    def _status(self) -> int | None:
        try:
            number, status = os.waitpid(self.child, os.WNOHANG)
        except ChildProcessError:
            return 0
        return status if number else None

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            for number in os.read(self.bell, 64):
                if number in STOPS and self.stopped is None:
                    self.stopped, self.killed_at = number, time.monotonic() + GRACE_SECONDS
                    with suppress(ProcessLookupError):
                        os.kill(self.child, number)

    def _look(self) -> None:
        self._read()
        if self.limit.bytes and not self.too_large and (taken := memory.taken(self.child)) > self.limit.bytes:
            self.too_large = taken
            self._kill()
        if self.killed_at is not None and time.monotonic() > self.killed_at:
            self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)

    def _read(self) -> None:
        pairs, self._offset = journal.read(self.notes, self._offset)
        for kind, text in pairs:
            if kind == "draft":
                self.drafts.append(Path(text))
            elif kind == "stage":
                self.stage = text
            elif kind == "limit":
                self.limit = memory.Limit.read(text)
            elif kind == "written":
                self.written = True
            elif kind == "exit":
                self.ended = int(text)

    def _told(self, code: int) -> int:
        """Return the exit code, after a line where the command could not say itself why it ended."""
        if self.ended is not None:
            return self.ended
        if self.stopped is None and -code in STOPS:
            self.stopped = -code
        if self.stopped is not None:
            self._say("interrupted") if self.stopped == signal.SIGINT else None
            return 128 + self.stopped
        self._say(self._why(code))
        return FAILED

    def _why(self, code: int) -> str:
        when = f" while {one_line(self.stage)}" if self.stage else ""
        if self.too_large:
            return f"memory: the command took {_gigabytes(self.too_large)}{when}, more than {self.limit.told}"
        if code >= 0:
            who = "code of --data or --eval does that"
            bounded = ", or a library that gets no memory: it is limited (ulimit)" if memory.is_limited() else ""
            return f"the process was ended from inside with exit code {code}{when}: {who}{bounded}"
        if -code == signal.SIGKILL:
            return f"the process was killed{when}: most likely the machine ran out of memory"
        name = signal.strsignal(-code) or f"signal {-code}"
        bounded = ", or memory: it is limited (ulimit)" if memory.is_limited() else ""
        return (
            f"a native library crashed ({name.lower()}){when}, most likely onnxruntime on this model{bounded}; "
            "report it to its makers, or leave out what was asked of this model"
        )

    def _say(self, text: str) -> None:
        outcome = "what is written was complete before" if self.written else "nothing was written"
        with suppress(OSError):
            os.write(2, f"error: {text}; {outcome}.\n".encode(errors="backslashreplace"))


def _gigabytes(size: int) -> str:
    return f"{size / (1 << 30):.1f} GB"
