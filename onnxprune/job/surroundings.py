"""What a report says of where and how it was made: date, versions, machine, words of the command line."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from onnxprune.version import __version__

PACKAGES = ("onnx", "onnxruntime", "numpy")
CPU_FILE = Path("/proc/cpuinfo")


def surroundings(argv: Sequence[str] = ()) -> dict[str, object]:
    """Return date (UTC; that of SOURCE_DATE_EPOCH where it is set), versions, machine and argv, as JSON data."""
    versions = {"onnxprune": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"argv": list(argv), "versions": versions, "machine": machine(), "date": date()}


def machine() -> str:
    """Return processor, threads and system, without the name of the computer."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = _processor() or platform.machine() or "unknown processor"
    return f"{kind}, {threads} thread{'s' * (threads > 1)}, {platform.system()} {platform.machine()}"


def date() -> str:
    """Return the time of now, or of SOURCE_DATE_EPOCH, as 2026-01-31 12:00 UTC."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(fixed) if fixed.isascii() and fixed.isdigit() and len(fixed) < 12 else time.time()
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _processor() -> str:
    try:
        lines = CPU_FILE.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "")
