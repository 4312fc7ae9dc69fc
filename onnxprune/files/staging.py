"""Several outputs that appear together or not at all.

Each is written as a draft beside its place and brought to the disk; then all of them are renamed, in the order in
which they should be believed: what describes the model first, the model last. If one cannot get its name, those before
it get their old content back.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from onnxprune.errors import OutputError
from onnxprune.files.identity import real_target, refuse_loaded_code
from onnxprune.files.owner import draft_name, is_draft, sweep
from onnxprune.processes import journal


@dataclass(frozen=True)
class Staged:
    """One output: what the user called it, the file that is written (behind links), and its draft."""

    path: Path
    target: Path
    draft: Path


class Staging:
    """Drafts of outputs; used as a context: what has not got its name by the end goes, Ctrl-C included."""

    def __init__(self, *, clobber: bool = True) -> None:
        """Begin with nothing.

        Args:
            clobber: replace files that exist.
        """
        self._clobber = clobber
        self._staged: list[Staged] = []
        self._left: list[Path] = []
        self._spare: list[Path] = []
        self._renaming = False
        self._after: list[Callable[[], None]] = []
        self._swept: set[Path] = set()

    def add(self, path: Path, *, last: bool = False) -> Path:
        """Return a new path beside an output, to write its content to.

        Args:
            last: it gets its name after those that are not (the model).

        Raises:
            OutputError: it cannot be an output.
        """
        target = real_target(path)
        if not self._clobber and target.exists():
            raise OutputError(f"the output '{path}' exists and may not be replaced (--no-clobber); name another.")
        if any(_same(target, other.target) for other in self._staged):
            raise OutputError(f"'{path}' is named for two outputs; give each a name of its own.")
        draft = self.extra(target.parent)
        entry = Staged(path, target, draft)
        self._staged = [*self._staged, entry] if last else [entry, *self._staged]
        return draft

    def extra(self, folder: Path) -> Path:
        """Return a new draft in a folder that gets its name by the caller's hand."""
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(folder)
        draft = folder / draft_name()
        journal.note("draft", str(draft.absolute()))
        self._left.append(draft)
        return draft

    def place(self, draft: Path, path: Path) -> None:
        """Give a draft its name at once: a file that others name, by a name that tells its content.

        It goes if the rest does not get its name. The draft stays as its second name until then, so that it can be
        told from a finished one after a kill.
        """
        if path.exists():  # the same content, by its name
            draft.unlink()
            return
        self._left.append(path)
        try:
            os.link(draft, path)
        except OSError:  # a file system without hard links
            draft.replace(path)

    def drop(self, path: Path) -> None:
        """Take an output back: its draft goes at the end, and another one may be added for it."""
        self._staged = [entry for entry in self._staged if entry.path != path]

    def then(self, action: Callable[[], None]) -> None:
        """Do something once everything has its name."""
        self._after.append(action)

    def text(self, path: Path, text: str) -> None:
        """Write a whole text as one of the outputs.

        Raises:
            OutputError: it cannot be written.
        """
        self.content(path, text.encode("utf-8", "backslashreplace"))

    def content(self, path: Path, content: bytes) -> None:
        """Write bytes as one of the outputs.

        Raises:
            OutputError: they cannot be written.
        """
        draft = self.add(path)
        with as_output_error(path), create(draft) as file:
            file.write(content)

    def commit(self) -> None:
        """Bring everything to the disk, then give every draft its name.

        Raises:
            OutputError: a file cannot be written; all are what they were before.
        """
        refuse_loaded_code([entry.path for entry in self._staged])
        for entry in self._staged:
            with as_output_error(entry.path):
                _like_old(entry)
                _sync(entry.draft)
        self._renaming = True
        self._rename()
        for folder in {entry.target.parent for entry in self._staged}:
            with suppress(OSError):
                _sync(folder)
        journal.note("written")
        for action in self._after:
            action()

    def _rename(self) -> None:
        backups: list[tuple[Path, Path | None]] = []
        try:
            for entry in self._staged:
                if entry is self._staged[-1]:
                    self._drop_second_names()
                with as_output_error(entry.path):
                    if real_target(entry.path) != entry.target:
                        raise OutputError(f"the output '{entry.path}' was changed meanwhile; nothing was written.")
                    if not self._clobber and entry.target.exists():
                        raise OutputError(f"the output '{entry.path}' exists by now; nothing was written.")
                    kept = self._backup(entry.target) if entry is not self._staged[-1] else None
                    entry.draft.replace(entry.target)
                    backups.append((entry.target, kept))
        except BaseException:
            if self._is_done():
                raise
            for target, kept in reversed(backups):
                with suppress(OSError):
                    target.unlink() if kept is None else kept.replace(target)
            raise

    def _drop_second_names(self) -> None:
        """Remove the drafts of what was placed: from here on it belongs to the outputs."""
        drafts = {entry.draft for entry in self._staged}
        for path in self._left:
            if path not in drafts and is_draft(path.name):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _is_done(self) -> bool:
        """Tell whether the last output has its name: an interruption just then changes nothing any more."""
        return self._renaming and bool(self._staged) and not self._staged[-1].draft.exists()

    def _backup(self, target: Path) -> Path | None:
        """Return a second name of what is about to be replaced, None where there is nothing."""
        if not target.exists():
            return None
        backup = target.parent / draft_name()
        self._spare.append(backup)
        try:
            os.link(target, backup)
        except OSError:  # a file system without hard links
            backup.write_bytes(target.read_bytes())
        return backup

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in self._spare if self._is_done() else (*self._spare, *self._left):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write one text file atomically.

    Raises:
        OutputError: it cannot be written.
    """
    with Staging() as staging:
        staging.text(path, text)
        staging.commit()


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn what the file system says into one line.

    Raises:
        OutputError: always instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"the output '{path}' cannot be written ({reason(error)}); nothing changed.") from error


def reason(error: Exception) -> str:
    """Return why a file cannot be written, in a few words."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full"
        return error.strerror or str(error)
    return str(error)


def create(draft: Path) -> BinaryIO:
    """Return a new file to write bytes to, for its owner's eyes until it gets its name."""
    return os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600), "wb")


def final_mode(target: Path) -> int:
    """Return the mode that an output gets: that of the file it replaces, else what new files get."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except OSError:
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask


def _same(a: Path, b: Path) -> bool:
    return a == b or os.path.realpath(a) == os.path.realpath(b)


def _like_old(entry: Staged) -> None:
    """Give a draft the mode, and where that is allowed the owner, of what it replaces."""
    with suppress(FileNotFoundError):
        old, new = entry.target.stat(), entry.draft.stat()
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) and hasattr(os, "chown"):
            with suppress(OSError):
                os.chown(entry.draft, old.st_uid, old.st_gid)
    entry.draft.chmod(final_mode(entry.target))


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
