"""Which integer types are fast and safe on the machine that runs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

X86 = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Flags of processors that add products of 8 bits without saturating."""


@dataclass(frozen=True)
class IntegerTypes:
    """Types of activations and weights; `reduce_range` takes 7 bits of the weights, so that 16-bit sums fit."""

    activation: str
    weight: str
    reduce_range: bool


def integer_types() -> IntegerTypes:
    """Return the defaults: u8s8 on x86 (onnxruntime's s8s8 is slower than float there), s8s8 elsewhere."""
    if platform.machine().lower() not in X86:
        return IntegerTypes("s8", "s8", False)
    flags = _flags()
    return IntegerTypes("u8", "s8", bool(flags) and not any(flag in flags for flag in DOT_PRODUCTS))


@cache
def _flags() -> frozenset[str]:
    """Flags of the processor, empty where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())
