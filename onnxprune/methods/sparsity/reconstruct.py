"""Choose zeros and change the other weights so that a layer gives on its inputs what it gave.

Nothing stays exact: the squared error on the inputs that the second moments describe is made small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.types import Array, BoolArray

BLOCK = 128
DAMPING = 0.01
"""Added to the diagonal, as a share of its mean."""

Choose = Callable[[Array], BoolArray]
"""Scores (outs, columns) -> mask of what stays."""


def damped(gram: Array, strength: float = DAMPING) -> Array:
    """Return a second moment (features, features) that can be inverted."""
    level = float(np.trace(gram)) / len(gram)
    hessian = gram.astype(np.float64)
    hessian[np.diag_indices(len(gram))] += strength * level if level > 0 else 1.0
    return hessian


def reconstruct(weight: Array, hessian: Array, choose: Choose, step: int) -> tuple[Array, BoolArray]:
    """Return weights (outs, features) with zeros and the mask of what stays, column by column.

    With U the upper Cholesky factor of H^-1: the columns that are decided next lose what has the least
    w[i, j]^2 / U[j, j]^2, and the error w[i, j] / U[j, j] of each zero is passed on to the later columns by U[j, j:].

    Args:
        step: columns that are decided at once.

    Source: Frantar & Alistarh 2023, SparseGPT, algorithm 1.
    """
    from scipy.linalg import cholesky

    w = weight.astype(np.float64)
    upper = cholesky(np.linalg.inv(hessian))
    scale = np.square(np.diag(upper))
    keep = np.ones(w.shape, np.bool_)
    width = max(step, BLOCK // step * step)
    for start in range(0, w.shape[1], width):
        end = min(start + width, w.shape[1])
        errors = np.zeros((len(w), end - start))
        for j in range(start, end):
            if (j - start) % step == 0:
                part = slice(j, min(j + step, end))
                keep[:, part] = choose(np.square(w[:, part]) / scale[part])
            errors[:, j - start] = np.where(keep[:, j], 0.0, w[:, j]) / upper[j, j]
            w[:, j:end] -= np.outer(errors[:, j - start], upper[j, j:end])
        w[:, end:] -= errors @ upper[start:end, end:]
    return np.where(keep, w, 0.0), keep


def polish(weight: Array, wanted: Array, hessian: Array, keep: BoolArray, steps: int = 40) -> Array:
    """Return the weights of the mask nearest to `wanted` in the norm of H, by conjugate gradients on every row.

    w = argmin over w with the zeros of (w - wanted) H (w - wanted)^T; `weight` is where it starts.
    """
    inverse = np.where(keep, 1.0 / np.diag(hessian), 0.0)
    w = np.where(keep, weight, 0.0)
    residual = np.where(keep, (wanted - w) @ hessian, 0.0)
    z = inverse * residual
    direction = z.copy()
    power = (residual * z).sum(1, keepdims=True)
    first = power.copy()
    for _ in range(steps):
        moved = np.where(keep, direction @ hessian, 0.0)
        curve = (direction * moved).sum(1, keepdims=True)
        length = np.divide(power, curve, out=np.zeros_like(power), where=curve > 0)
        w += length * direction
        residual -= length * moved
        z = inverse * residual
        before, power = power, (residual * z).sum(1, keepdims=True)
        if (power <= 1e-10 * first).all():
            break
        direction = z + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * direction
    return w
