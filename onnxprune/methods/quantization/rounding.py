"""Rounding that looks at what a matrix is multiplied with: the error of a row is made up for by the rows after it.

minimises || X (W - Q) ||^2 over grids Q, given H = X^T X / n, row by row: with U the upper Cholesky factor of
(H + lambda I)^-1, e = (w_k - q_k) / U_kk, every later row j becomes w_j - U_kj e.
Source: Frantar et al., GPTQ (2022), algorithm 1, with the range of a block chosen when its first row is reached.
"""

from __future__ import annotations

import numpy as np

from onnxprune.methods.quantization.weight_only import block_grid
from onnxprune.types import Array, FloatArray

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it."""


def round_with_gram(matrix: Array, gram: FloatArray, bits: int, block_size: int) -> tuple[Array, Array, Array]:
    """Round a matrix (inputs, outputs), given the second moment (inputs, inputs) of what it multiplies.

    Returns:
        codes (outputs, blocks, block size), scales (outputs, blocks), zero points (outputs, blocks), as
        `weight_only.round_blocks`.
    """
    rows, columns = matrix.shape
    blocks = -(-rows // block_size)
    codes = np.zeros((columns, blocks * block_size), np.uint8)
    scales, zeros = np.zeros((columns, blocks), np.float32), np.zeros((columns, blocks), np.uint8)
    upper = upper_factor(gram)
    left = matrix.astype(np.float64)
    for block in range(blocks):
        start, end = block * block_size, min((block + 1) * block_size, rows)
        values = np.zeros((columns, 1, block_size), np.float32)
        values[:, 0, : end - start] = left[start:end].T
        _, scale, zero = block_grid(values, bits)
        scales[:, block], zeros[:, block] = scale[:, 0], zero[:, 0]
        errors = np.zeros((end - start, columns))
        for row in range(start, end):
            code = np.clip(np.rint(left[row] / scale[:, 0]) + zero[:, 0], 0, 2**bits - 1)
            codes[:, row] = code
            errors[row - start] = (left[row] - (code - zero[:, 0]) * scale[:, 0]) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    codes = codes.reshape(columns, blocks, block_size)
    if rows % block_size:
        codes[:, -1, rows % block_size :] = zeros[:, -1:]  # what stands for the missing rows is zero
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
