"""Who a temporary file belongs to, spelled in its name, so that what a killed process left can be told from what a
living one uses.

A process is known by its number and the time at which it started; both hold on one host, and inside one container.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

FOREIGN_SECONDS = 7 * 24 * 3600
"""What a process of another host left is taken for dead after this time: nothing tells whether it lives."""

_NAME = re.compile(
    r"\.?onnxprune-(?P<host>[0-9a-f]{8})-(?P<number>[0-9]{1,10})-(?P<start>[0-9]{1,20})-[0-9a-z_]{4,32}(\.tmp)?"
)

_DATA = re.compile(r"\.[0-9a-f]{16}\.data$")


def draft_name() -> str:
    """Return a new name for a file that stands beside its output until it gets its name."""
    return f".{folder_prefix()}{secrets.token_hex(8)}.tmp"


def is_draft(name: str) -> bool:
    """Tell whether a name is one that `draft_name` gives."""
    return name.startswith(".") and _NAME.fullmatch(name) is not None


def folder_prefix() -> str:
    """Return how the names of temporary folders of this process begin."""
    number = os.getpid()
    return f"onnxprune-{_host()}-{number}-{_start(number) or 0}-"


def sweep(folder: Path) -> list[Path]:
    """Remove what dead processes of ours left in a folder, and return it. What cannot be removed stays."""
    found = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            match = _NAME.fullmatch(entry.name)
            if match is None or entry.is_symlink() or _lives(match, Path(entry.path)):
                continue
            with suppress(OSError):
                _remove(Path(entry.path))
                found.append(Path(entry.path))
    return found


def remove_own(path: Path) -> None:
    """Remove a temporary file or folder that has a name of ours; anything else stays."""
    if _NAME.fullmatch(path.name) and not path.is_symlink():
        with suppress(OSError):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    state = path.stat()
    if state.st_nlink > 1:  # data that were placed for an output which never got its name
        for other in os.scandir(path.parent):
            if _DATA.search(other.name) and other.inode() == state.st_ino:
                Path(other.path).unlink()
    path.unlink()


def _lives(match: re.Match[str], path: Path) -> bool:
    """Tell whether the owner may still need it: on another host, for a week; here, while it runs."""
    if match["host"] != _host():
        return time.time() - path.lstat().st_mtime < FOREIGN_SECONDS
    number, start = int(match["number"]), int(match["start"])
    now = _start(number)
    if now is not None:
        return now == start
    return _exists(number)


def _exists(number: int) -> bool:
    if os.name == "nt":  # there, signal 0 ends a process
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _start(number: int) -> int | None:
    """Return when a process started, in ticks of the host's clock; None where /proc does not tell or there is none."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _host() -> str:
    """Return a hash of the host's name and, where there is one, of the container's table of processes."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]
