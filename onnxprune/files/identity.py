"""Which file a path leads to, through links: an output may be none of the files that a command reads."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from onnxprune.errors import OutputError

Identity = tuple[int, int]


def identity(path: str | Path) -> Identity | None:
    """Return device and number of the file that a path leads to, None if there is none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def files_of(source: str | Path | None) -> Iterator[Path]:
    """Yield the files behind what is given for data or a function: a file, every file of a folder, `file.py:name`."""
    if source is None:
        return
    path = Path(source)
    file, colon, _ = str(source).rpartition(":")
    if colon and file.endswith(".py") and not path.exists():
        path = Path(file)
    if not path.is_dir():
        yield path
        return
    for folder, _, names in os.walk(path, followlinks=False):
        yield from (Path(folder, name) for name in names)


def refuse_inputs(outputs: Iterable[Path | None], inputs: Mapping[str, Iterable[Path]]) -> None:
    """Make sure that no output is a file that is read.

    Args:
        inputs: what a file is read as, such as "the model" -> these files.

    Raises:
        OutputError: one is.
    """
    wanted = {found: path for path in outputs if path is not None and (found := identity(path)) is not None}
    if not wanted:
        return
    for what, paths in inputs.items():
        for path in paths:
            output = wanted.get(identity(path) or (-1, -1))
            if output is not None:
                same = "" if Path(output) == Path(path) else f" ('{path}')"
                raise OutputError(f"the output '{output}' is {what}{same}: an input is never replaced; name another.")


def refuse_loaded_code(outputs: Iterable[Path | None]) -> None:
    """Make sure that no output is a Python file that this process has loaded: the user's code imports others.

    Raises:
        OutputError: one is.
    """
    wanted = [path for path in outputs if path is not None and path.suffix.lower() in (".py", ".pyc", ".so", ".pth")]
    if wanted:
        files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
        refuse_inputs(wanted, {"code that this command has loaded": files})


def real_target(path: Path) -> Path:
    """Return where an output is written: the file that a link leads to, else the path itself.

    Raises:
        OutputError: links lead in a circle, or it exists and is no regular file (a folder, a device, a pipe).
    """
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"the output '{path}' cannot be written ({reason}); name another.") from error
    if stat.S_ISDIR(kind):
        raise OutputError(f"the output '{path}' is a folder; give the name of a file in it.")
    if not stat.S_ISREG(kind):
        raise OutputError(f"the output '{path}' is not a regular file; name another.")
    return Path(os.path.realpath(path)) if path.is_symlink() else path
