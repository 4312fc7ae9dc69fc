"""Numbers as people read them."""

from __future__ import annotations


def count(value: float | None) -> str:
    """Return a count with three digits: 950, 12.3 k, 25.6 M, 4.09 G."""
    if value is None:
        return "?"
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Return a number of bytes: 512 B, 97.8 MB."""
    return "?" if value is None else f"{count(value)}{'B' if value >= 999.5 else ' B'}"


def share(part: float | None, whole: float | None) -> str:
    """Return how much is left: 61.2 %."""
    if part is None or not whole:
        return "?"
    return f"{100 * part / whole:.1f} %"


def change(before: float | None, after: float | None) -> str:
    """Return the change: -38.8 %."""
    if before is None or after is None or not before:
        return "?"
    return f"{100 * (after - before) / before:+.1f} %"


def milliseconds(value: float) -> str:
    """Return a time with three digits: 0.124 ms, 12.4 ms."""
    return f"{_three_digits(value)} ms"


def joules(value: float) -> str:
    """Return an energy with three digits: 12.4 uJ, 3.1 mJ, 1.5 J."""
    unit, scale = next(((u, s) for u, s in (("J", 1.0), ("mJ", 1e-3)) if abs(value) >= 0.9995 * s), ("uJ", 1e-6))
    return f"{value / scale:.3g} {unit}"


def figure(value: float | None, digits: int = 4) -> str:
    """Return a metric, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def beside(value: float, limit: float) -> str:
    """Return a value in four digits, or as many more as leave it on its side of a limit."""
    told = (f"{value:.{digits}g}" for digits in range(4, 12))
    return next((text for text in told if (float(text) < limit) == (value < limit)), f"{value:.12g}")


def decibels(value: float | None) -> str:
    """Return a signal to noise ratio; from 300 dB on the values are the same."""
    if value is None:
        return "-"
    return "identical" if value >= 300 else f"{value:.1f} dB"


def error(value: float | None) -> str:
    """Return a small difference: 3.1e-07."""
    return "-" if value is None else f"{value:.1e}" if value else "0"


def _three_digits(value: float) -> str:
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}" if abs(value) >= 0.9995 else f"{value:.3f}"
