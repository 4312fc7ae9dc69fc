"""Which target this machine is."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from onnxprune.hardware.target import Target, target_named


@cache
def host() -> Target:
    """Return the target of onnxruntime on this machine's CPU; AVX2 where it does not say more."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return target_named("cpu-arm64")
    return target_named("cpu-avx512" if "avx512f" in _flags() else "cpu-avx2")


def _flags() -> frozenset[str]:
    """Return the instruction sets that Linux lists of the CPU; elsewhere none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())
