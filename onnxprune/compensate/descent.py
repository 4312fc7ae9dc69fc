"""Steps along gradients: Muon for matrices, Adam for what is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from onnxprune.compensate.ridge import one_thread
from onnxprune.types import Array

Blocks = tuple[int, int, int]
MOMENTUM = 0.95
FLOOR = 0.05
"""Rows and columns are taken for no smaller than this share of the whole."""
WORTH_THREADS = 1 << 20
"""Numbers that are changed; fewer are done before threads have begun."""
LONG = 1.75
"""Matrices so many times as long as wide are made orthogonal by their Gram matrix: fewer products."""
RISE = 20
"""Steps in which the rate rises."""
FULL_RATE = 300
"""In fewer steps than these, what steps of the full rate spoil at first does not come back."""


class Descent:
    """Weights on their way down, and what the optimiser remembers of them.

    A step changes a weight by at most about `rate` times its root mean square. The update of a matrix is its momentum
    with all singular values made equal, so that rare directions move as much as common ones, in units of its rows and
    columns (`spreads`).
    Source: Muon (Jordan et al., 2024; Liu et al., 2025, equation 4); Adam (Kingma and Ba, 2015, algorithm 1).
    """

    def __init__(
        self, weights: Mapping[str, Array], matrices: Mapping[str, Blocks], rate: float, steps: int, workers: int = 1
    ) -> None:
        """Take the weights to start from.

        Args:
            matrices: (blocks, rows, columns) of those that are matrices.
            workers: many weights are changed by so many threads side by side; the result is the same.
        """
        self._workers = workers if sum(w.size for w in weights.values()) > WORTH_THREADS else 1
        self.weights = dict(weights)
        self._matrices, self._rate, self._steps, self._step = matrices, rate, steps, 0
        self._sizes = {name: max(float(np.sqrt(np.square(w).mean())), 1e-3) for name, w in weights.items()}
        self._scales = {name: spreads(self.weights[name].reshape(shape)) for name, shape in matrices.items()}
        self._first = {name: np.zeros_like(w) for name, w in weights.items()}
        self._second = {name: np.zeros_like(w) for name, w in weights.items() if name not in matrices}

    @property
    def steps_taken(self) -> int:
        """How many steps were taken."""
        return self._step

    def memory(self) -> dict[str, dict[str, Array]]:
        """Return what the optimiser remembers: "m", means of gradients, "v", of their squares."""
        return {"m": self._first, "v": self._second}

    def resume(self, weights: dict[str, Array], first: dict[str, Array], second: dict[str, Array], steps: int) -> None:
        """Go on from weights, and what was remembered, after so many steps."""
        self.weights, self._first, self._second, self._step = weights, first, second, steps

    def step(self, slopes: Iterable[Array], fraction: float | None = None, steps: float | None = None) -> None:
        """Take one step along the gradients, given in the order of the weights; what is infinite there counts as 0.

        The root of zero, as in spectra of silence, has an infinite slope.

        Args:
            fraction: how much of the way is done, for the rate; None: as the steps are counted.
            steps: how many there will be, as far as that can be said; None: enough for the full rate.
        """
        self._step += 1
        cosine = 0.5 * (1 + np.cos(np.pi * (self._step / (self._steps + 1) if fraction is None else fraction)))
        largest = self._rate if steps is None else rate_of_walk(self._rate, steps)
        rate = largest * min(1.0, self._step / RISE) * cosine
        pairs = list(zip(self.weights, slopes, strict=True))
        with one_thread(), ThreadPoolExecutor(self._workers) as pool:
            across = pool.map if self._workers > 1 else map
            for name, weight in across(lambda pair: self._moved(pair[0], pair[1], rate), pairs):
                self.weights[name] = weight

    def _moved(self, name: str, slope: Array, rate: float) -> tuple[str, Array]:
        weight = self.weights[name]
        slope = slope.reshape(weight.shape)
        if not np.isfinite(slope).all():
            slope = np.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        update = self._muon(name, slope) if name in self._matrices else self._adam(name, slope)
        return name, np.asarray(weight - np.float32(rate * self._sizes[name]) * update)

    def _muon(self, name: str, slope: Array) -> Array:
        first = self._first[name] = MOMENTUM * self._first[name] + (1 - MOMENTUM) * slope
        ahead = MOMENTUM * first + (1 - MOMENTUM) * slope
        scales = self._scales[name]
        update = orthogonal(ahead.reshape(self._matrices[name]) * scales) * scales
        return np.asarray((update / (np.sqrt(np.square(update).mean()) + 1e-12)).reshape(slope.shape), np.float32)

    def _adam(self, name: str, slope: Array) -> Array:
        first = self._first[name] = 0.9 * self._first[name] + 0.1 * slope
        second = self._second[name] = 0.99 * self._second[name] + 0.01 * np.square(slope)
        mean, spread = first / (1 - 0.9**self._step), second / (1 - 0.99**self._step)
        return np.asarray(mean / (np.sqrt(spread) + 1e-12), np.float32)


def rate_of_walk(rate: float, steps: float) -> float:
    """Return the largest rate of a walk of so many steps: short ones go by the root of their length."""
    return rate * math.sqrt(min(1.0, steps / FULL_RATE))


def spreads(matrices: Array) -> Array:
    """Return (blocks, rows, columns): how large rows are, times how large columns are, relative to the whole.

    Rows differ where a normalisation is folded into them, columns where inputs differ in size.
    """
    power = np.square(matrices, dtype=np.float64)
    mean = power.mean(axis=(1, 2), keepdims=True) + 1e-30
    rows, columns = (np.sqrt(power.mean(axis=axis, keepdims=True) / mean) for axis in (2, 1))
    return np.asarray(np.maximum(rows, FLOOR) * np.maximum(columns, FLOOR), np.float32)


def orthogonal(matrices: Array, rounds: int = 5) -> Array:
    """Return (blocks, rows, columns) matrices with the same singular vectors and singular values of about 1.

    Source: Newton-Schulz iteration with the quintic of Jordan et al., 2024 (Muon): singular values end in 0.7-1.2.
    """
    x = matrices / (np.sqrt(np.square(matrices).sum(axis=(1, 2), keepdims=True)) + 1e-12)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(0, 2, 1) if tall else x
    if x.shape[2] >= LONG * x.shape[1]:
        x = _through_grams(x @ x.transpose(0, 2, 1), rounds) @ x
    else:
        for _ in range(rounds):
            x = _quintic(x @ x.transpose(0, 2, 1)) @ x
    return np.asarray(x.transpose(0, 2, 1) if tall else x)


def _quintic(gram: Array) -> Array:
    """Return what a round multiplies matrices of this Gram matrix with, from the left."""
    found = -4.775 * gram + 2.0315 * (gram @ gram)
    places = np.arange(gram.shape[1])
    found[:, places, places] += np.float32(3.4445)
    return np.asarray(found)


def _through_grams(gram: Array, rounds: int) -> Array:
    """Return the product of all rounds, which are polynomials of one Gram matrix: nothing in them is long."""
    product = step = _quintic(gram)
    for _ in range(rounds - 1):
        gram = step @ gram @ step
        step = _quintic(gram)
        product = step @ product
    return product
