"""The inner loops of the dense solver for one problem on a CPU, compiled by numba (the extra `fast`).

    passes               count times  v = (K^T alpha)^-tau_b,  u = (K beta)^-tau_a   (see `kernel`)
    conjugate_gradient   (I - S^T S) x = rhs,  S = diag(left) K diag(right)          (see `newton`)

Two things make them faster than the same loops in torch. K is read once for the product with K and the one with K^T,
four rows at a time while they are in cache; and there is no call per vector operation, which costs more than the
operation for a few hundred points. The machine code is kept on disk; importing this module compiles it if need be.
"""

from __future__ import annotations

import numba
import numpy as np

# Sums may be reordered, which vector instructions need; NaN and infinity keep their meaning.
_OPTIONS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "nogil": True}


def _signatures(result: str, *arguments: str) -> list[str]:
    """Explicit types for both precisions, so that nothing is compiled at a call."""
    return [f"{result}({', '.join(arguments)})".replace("real", real) for real in ("float32", "float64")]


_MATRIX, _VECTOR = "real[:, ::1]", "real[::1]"


@numba.njit(**_OPTIONS)
def _dots(matrix, first, x, sums):
    """Set sums[first : first + 4] = four rows of the matrix times x."""
    k0, k1, k2, k3 = matrix[first], matrix[first + 1], matrix[first + 2], matrix[first + 3]
    # Zero in the type of x: with a literal the sums would be in double precision, at half the speed.
    s0 = s1 = s2 = s3 = x.dtype.type(0)
    for j in range(x.size):
        s0 += k0[j] * x[j]
    for j in range(x.size):
        s1 += k1[j] * x[j]
    for j in range(x.size):
        s2 += k2[j] * x[j]
    for j in range(x.size):
        s3 += k3[j] * x[j]
    sums[first], sums[first + 1], sums[first + 2], sums[first + 3] = s0, s1, s2, s3


@numba.njit(**_OPTIONS)
def _adds(matrix, first, scales, out):
    """Add scales[first : first + 4] times four rows of the matrix to `out`."""
    k0, k1, k2, k3 = matrix[first], matrix[first + 1], matrix[first + 2], matrix[first + 3]
    c0, c1, c2, c3 = scales[first], scales[first + 1], scales[first + 2], scales[first + 3]
    for j in range(out.size):
        out[j] += c0 * k0[j] + c1 * k1[j] + c2 * k2[j] + c3 * k3[j]


@numba.njit(**_OPTIONS)
def _dot(x, y):
    total = x.dtype.type(0)
    for j in range(x.size):
        total += x[j] * y[j]
    return total


@numba.njit(**_OPTIONS)
def _add(scale, x, out):
    for j in range(out.size):
        out[j] += scale * x[j]


@numba.njit(**_OPTIONS)
def _scaling(total, tau, factor, tiny):
    total = max(total, tiny)
    return 1 / total if tau == 1 else factor * total**-tau


@numba.njit(
    _signatures("Tuple((float64, int64))", _MATRIX, *[_VECTOR] * 5, *["float64"] * 5, "int64", *[_VECTOR] * 4),
    cache=True,
    **_OPTIONS,
)
def passes(
    matrix, a, b, row_factor, column_factor, target, tau_a, tau_b, power, tiny, bound, count, v, u, rows, columns
):
    """Up to `count` passes in place of v, u, rows = K beta and columns = K^T alpha.

    Stops when the L1 distance of the column sums to target v^power is within `bound`. Returns that distance and the
    number of passes.
    """
    n = matrix.shape[0]
    beta, alpha = np.empty_like(b), np.empty_like(a)
    error, done = np.inf, 0
    while done < count and not error <= bound:
        for j in range(b.size):
            v[j] = _scaling(columns[j], tau_b, column_factor[j], tiny)
            beta[j] = b[j] * v[j]
            columns[j] = 0
        for first in range(0, n - 3, 4):
            _dots(matrix, first, beta, rows)
            for i in range(first, first + 4):
                u[i] = _scaling(rows[i], tau_a, row_factor[i], tiny)
                alpha[i] = a[i] * u[i]
            _adds(matrix, first, alpha, columns)
        for i in range(n - n % 4, n):
            rows[i] = _dot(matrix[i], beta)
            u[i] = _scaling(rows[i], tau_a, row_factor[i], tiny)
            alpha[i] = a[i] * u[i]
            _add(alpha[i], matrix[i], columns)
        error = 0.0
        for j in range(b.size):
            wanted = target[j] if power == 0 else target[j] * v[j] ** power
            error += abs(wanted - beta[j] * columns[j])
        done += 1
    return error, done


@numba.njit(**_OPTIONS)
def _complement(matrix, weights, right, gauge, x, image):
    """Set image = (I - S^T S) x without its part along the gauge (a zero vector takes nothing out)."""
    n = matrix.shape[0]
    scaled, rows = right * x, np.empty_like(weights)
    image[:] = 0
    for first in range(0, n - 3, 4):
        _dots(matrix, first, scaled, rows)
        for i in range(first, first + 4):
            rows[i] *= weights[i]
        _adds(matrix, first, rows, image)
    for i in range(n - n % 4, n):
        _add(weights[i] * _dot(matrix[i], scaled), matrix[i], image)
    for j in range(x.size):
        image[j] = x[j] - right[j] * image[j]
    _add(-_dot(gauge, image), gauge, image)


@numba.njit(
    _signatures("Tuple((int64, boolean))", _MATRIX, *[_VECTOR] * 4, "float64", "int64", _VECTOR),
    cache=True,
    **_OPTIONS,
)
def conjugate_gradient(matrix, weights, right, gauge, rhs, bound, max_steps, x):
    """Add to x until the 2-norm of the residual is within `bound`; returns the steps, and whether it is."""
    residual, direction, image = rhs.copy(), rhs.copy(), np.empty_like(rhs)
    size = _dot(residual, residual)
    for step in range(1, max_steps + 1):
        _complement(matrix, weights, right, gauge, direction, image)
        curvature = _dot(direction, image)
        if not curvature > 0:
            return step, False
        length = size / curvature
        _add(length, direction, x)
        _add(-length, image, residual)
        last, size = size, _dot(residual, residual)
        if size <= bound * bound:
            return step, True
        ratio = size / last
        for j in range(x.size):
            direction[j] = residual[j] + ratio * direction[j]
    return max_steps, False
