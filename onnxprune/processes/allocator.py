"""How the C library gives memory back: less eagerly, because the same arrays are soon wanted again.

By default glibc maps every large array anew and returns it when it is freed, and the kernel clears its pages each time:
on a network of images that was nearly half of all CPU time.
"""

from __future__ import annotations

import ctypes
import os

MAPPED = 0
"""So many arrays may be mapped by themselves, which clears their pages anew each time: all come from the heap."""
KEPT = 256 << 20
"""So much free memory at the end of the heap stays for the next array."""
SETTINGS = {"MALLOC_MMAP_MAX_": (-4, MAPPED), "MALLOC_TRIM_THRESHOLD_": (-1, KEPT)}
"""Variable that glibc reads at a start -> number of the parameter of mallopt(3), value."""


def keep_freed() -> bool:
    """Keep what is freed for what comes next, in this process and those that it starts.

    Returns:
        Whether this C library listens; nothing is changed where the user has settings of their own.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    done = [bool(mallopt(parameter, value)) for parameter, value in SETTINGS.values()]
    os.environ.update({name: str(value) for name, (_, value) in SETTINGS.items()})
    return all(done)
