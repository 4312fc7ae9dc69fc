"""Rounding that looks at what a matrix is multiplied with: the error of a row is made up for by the rows after it.

minimises || X (W - Q) ||^2 over grids Q, given H = X^T X / n, row by row: with U the upper Cholesky factor of
(H + lambda I)^-1, e = (w_k - q_k) / U_kk, every later row j becomes w_j - U_kj e. Rows that are multiplied with the
most come first, as those after them make up for their errors; the range of a block is known before.
Source: Frantar et al., GPTQ (2022), algorithm 1, with the rows in the order of the diagonal of H.
"""

from __future__ import annotations

import numpy as np

from onnxprune.methods.quantization.weight_only import round_blocks
from onnxprune.types import Array, FloatArray

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it."""
TOGETHER = 128
"""Rows whose errors are passed on to the rest at once."""


def round_with_gram(matrix: Array, gram: FloatArray, bits: int, block_size: int) -> tuple[Array, Array, Array]:
    """Round a matrix (inputs, outputs), given the second moment (inputs, inputs) of what it multiplies.

    Returns:
        codes (outputs, blocks, block size), scales (outputs, blocks), zero points (outputs, blocks), as
        `weight_only.round_blocks`.
    """
    rows = len(matrix)
    codes, scales, zeros = round_blocks(matrix, bits, block_size)
    if not np.isfinite(gram).all():
        return codes, scales, zeros  # the data say nothing
    order = np.argsort(-np.diag(gram), kind="stable")
    upper = upper_factor(gram[np.ix_(order, order)])
    scale, zero = (parts.T[order // block_size].astype(np.float64) for parts in (scales, zeros))
    left, found = matrix[order].astype(np.float64), np.zeros(matrix.shape)
    for start in range(0, rows, TOGETHER):
        end = min(start + TOGETHER, rows)
        errors = np.zeros((end - start, matrix.shape[1]))
        for row in range(start, end):
            found[row] = np.clip(np.rint(left[row] / scale[row]) + zero[row], 0, 2**bits - 1)
            errors[row - start] = (left[row] - (found[row] - zero[row]) * scale[row]) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    codes.reshape(len(codes), -1)[:, order] = found.T.astype(np.uint8)
    return codes, scales, zeros


def upper_factor(gram: FloatArray) -> FloatArray:
    """Return the upper Cholesky factor U of the inverse of the damped second moment H: H^-1 = U^T U.

    From H = V V^T with V upper, which is the factor of H with rows and columns in reverse, U = V^-1: no inverse of H
    is needed, which for a H of few samples would be no second moment any more.
    """
    from scipy.linalg import solve_triangular

    damped = np.asarray(gram, np.float64).copy()
    diagonal = np.einsum("ii->i", damped)
    diagonal[diagonal <= 0] = 1.0  # an input that is always zero
    level = DAMPING * diagonal.mean()
    while True:
        diagonal += level
        try:
            factor = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        except np.linalg.LinAlgError:  # rounding made it indefinite
            level *= 10
            continue
        return np.asarray(solve_triangular(factor, np.eye(len(damped)), check_finite=False))
