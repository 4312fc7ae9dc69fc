"""Where statistics are kept between commands: nowhere, unless somebody asks.

`ONNXPRUNE_CACHE` names a folder, or is `off`. The command line asks for the user's cache folder where it is not set; a
call of the library keeps nothing without it. It is a variable of the environment so that workers see the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "ONNXPRUNE_CACHE"
_OFF = ("off", "0", "none", "false", "no", "")


def keep_statistics() -> None:
    """Ask for statistics to be kept in the user's cache folder, if there is one and nothing else was asked for."""
    folder = _user_folder()
    if VARIABLE not in os.environ and folder is not None:
        os.environ[VARIABLE] = str(folder)


def statistics_folder() -> Path | None:
    """Return the folder that was asked for, None if none."""
    chosen = os.environ.get(VARIABLE, "")
    return None if chosen.strip().lower() in _OFF else Path(chosen)


def _user_folder() -> Path | None:
    """Return the user's cache folder for us; None for a user without a home."""
    own = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    if own and Path(own).is_absolute():
        return Path(own) / "onnxprune"
    try:
        home = Path.home()
    except (RuntimeError, OSError, KeyError):
        return None
    if not home.is_absolute() or home == Path(home.anchor):
        return None
    return home.joinpath(*(("AppData", "Local") if sys.platform == "win32" else (".cache",))) / "onnxprune"
