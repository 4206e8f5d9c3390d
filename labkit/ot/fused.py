"""The inner loops of the dense solver for one problem on a CPU, compiled by numba (the extra `fast`).

    passes               count times  v = (K^T alpha)^-tau_b,  u = (K beta)^-tau_a   (see `kernel`)
    conjugate_gradient   (I - S^T S) x = rhs,  S = diag(left) K diag(right)          (see `newton`)
    improve              passes and steps of Newton's method in turn                  (see `potentials`)

Two things make them faster than the same loops in torch. K is read once for the product with K and the one with K^T,
four rows at a time while they are in cache; and there is no call per vector operation, which costs more than the
operation for a few hundred points. The machine code is kept on disk; importing this module compiles it if need be.
"""

from __future__ import annotations

import numba
import numpy as np

from labkit.ot.newton import BACKTRACKS, FORCING, LONGEST_STEP, OVERSHOOT

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


@numba.njit(**_OPTIONS)
def _pass(matrix, vectors, taus, tiny, beta, u, rows, columns):
    """Set rows = K beta, u from them, and columns = K^T (a u)."""
    a, row_factor = vectors[0], vectors[2]
    n = matrix.shape[0]
    alpha = np.empty_like(a)
    columns[:] = 0
    for first in range(0, n - 3, 4):
        _dots(matrix, first, beta, rows)
        for i in range(first, first + 4):
            u[i] = _scaling(rows[i], taus[0], row_factor[i], tiny)
            alpha[i] = a[i] * u[i]
        _adds(matrix, first, alpha, columns)
    for i in range(n - n % 4, n):
        rows[i] = _dot(matrix[i], beta)
        u[i] = _scaling(rows[i], taus[0], row_factor[i], tiny)
        alpha[i] = a[i] * u[i]
        _add(alpha[i], matrix[i], columns)


@numba.njit(**_OPTIONS)
def _residual(vectors, power, v, columns, out):
    """Set `out` to the prescribed minus the actual column sums; returns its L1 norm."""
    b, target = vectors[1], vectors[4]
    error = 0.0
    for j in range(b.size):
        wanted = target[j] if power == 0 else target[j] * v[j] ** power
        out[j] = wanted - b[j] * v[j] * columns[j]
        error += abs(out[j])
    return error


@numba.njit(
    _signatures(
        "Tuple((float64, int64))",
        _MATRIX,
        "UniTuple(real[::1], 5)",
        "UniTuple(float64, 2)",
        *["float64"] * 3,
        "int64",
        "UniTuple(real[::1], 4)",
    ),
    cache=True,
    **_OPTIONS,
)
def passes(matrix, vectors, taus, power, tiny, bound, count, state):
    """Up to `count` passes in place of `state` = (v, u, rows, columns), rows = K beta and columns = K^T alpha.

    `vectors` = (a, b, row factor, column factor, target). Stops when the L1 distance of the column sums to
    target v^power is within `bound`. Returns that distance and the number of passes.
    """
    b, column_factor = vectors[1], vectors[3]
    v, u, rows, columns = state
    beta, residual = np.empty_like(b), np.empty_like(b)
    error, done = np.inf, 0
    while done < count and not error <= bound:
        for j in range(b.size):
            v[j] = _scaling(columns[j], taus[1], column_factor[j], tiny)
            beta[j] = b[j] * v[j]
        _pass(matrix, vectors, taus, tiny, beta, u, rows, columns)
        error = _residual(vectors, power, v, columns, residual)
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


@numba.njit(**_OPTIONS)
def _inside(weights, scaling, limit):
    """Whether the scalings of points with mass are finite, and neither they nor their inverses exceed `limit`."""
    for k in range(weights.size):
        if weights[k] > 0 and not (scaling[k] < limit and scaling[k] * limit > 1):
            return False
    return True


@numba.njit(**_OPTIONS)
def _direction(matrix, vectors, taus, ratio, error, max_steps, state, residual, out):
    """Set `out` to Newton's direction in single precision; returns the steps it took, and whether it is met."""
    a, b = vectors[:2]
    v, u, rows, columns = state
    kind = matrix.dtype.type
    weights, right = np.zeros(a.size, matrix.dtype), np.zeros(b.size, matrix.dtype)
    gauge, rhs, x = np.zeros_like(right), np.zeros_like(right), np.zeros_like(right)
    for i in range(a.size):
        if a[i] > 0:
            weights[i] = kind(taus[0] * a[i] * u[i] / rows[i])
    fixed = taus[0] == 1 and taus[1] == 1
    for j in range(b.size):
        actual = b[j] * v[j] * columns[j]
        diagonal = actual + ratio * (actual + residual[j])
        root = 1 / np.sqrt(diagonal) if diagonal > 0 else 0.0
        out[j] = root
        right[j] = kind(b[j] * v[j] * root)
        rhs[j] = kind(residual[j] * root)
        if fixed:
            gauge[j] = kind(np.sqrt(actual))
    bound = min(max(np.sqrt(error), FORCING[0]), FORCING[1]) * np.sqrt(_dot(rhs, rhs))
    if fixed:
        gauge /= np.sqrt(_dot(gauge, gauge))
        _add(-_dot(gauge, rhs), gauge, rhs)
    steps, met = conjugate_gradient(matrix, weights, right, gauge, rhs, bound, max_steps, x)
    for j in range(b.size):
        out[j] = min(max(out[j] * x[j], -LONGEST_STEP), LONGEST_STEP)
    return steps, met


@numba.njit(**_OPTIONS)
def _search(matrix, vectors, taus, power, tiny, state, residual, direction):
    """Go along the direction, less far while the dual falls again; returns the passes."""
    b = vectors[1]
    v, u, rows, columns = state
    start, beta, length = v.copy(), np.empty_like(v), 1.0
    slope = _dot(direction, residual)
    for count in range(1, BACKTRACKS + 2):
        if count > BACKTRACKS:
            length = 0.0
        for j in range(b.size):
            v[j] = start[j] * np.exp(length * direction[j])
            beta[j] = b[j] * v[j]
        _pass(matrix, vectors, taus, tiny, beta, u, rows, columns)
        _residual(vectors, power, v, columns, residual)
        if _dot(direction, residual) >= -OVERSHOOT * slope:
            return count
        length /= 4
    return BACKTRACKS + 1


@numba.njit(
    _signatures(
        "Tuple((int64, boolean))",
        _MATRIX,
        "float32[:, ::1]",
        "UniTuple(real[::1], 5)",
        "UniTuple(float64, 2)",
        *["float64"] * 6,
        *["int64"] * 3,
        "UniTuple(real[::1], 4)",
        "real[::1]",
    ),
    cache=True,
    **_OPTIONS,
)
def improve(
    matrix, single, vectors, taus, power, tiny, mass, limit, tolerance, patience, every, cap, budget, state, safe
):
    """Passes and Newton's method in place of `state` until the error is within `tolerance`.

    Returns the iterations, and whether conjugate gradients have stalled, which also ends it, as does a scaling
    beyond `limit`. `single` is memory for K in single precision, `safe` for the last v that was within the limit.
    """
    a, b = vectors[:2]
    v, u, _, columns = state
    residual, direction = np.empty_like(v), np.empty_like(v)
    used, before, last, filled = 0, 0, np.inf, matrix.itemsize == single.itemsize
    while _inside(a, u, limit) and _inside(b, v, limit):
        safe[:] = v
        error = _residual(vectors, power, v, columns, residual) / mass
        if error <= tolerance or used >= budget:
            return used, False
        left = np.inf
        if error < last < np.inf:
            left = (used - before) * np.log(error / tolerance) / np.log(last / error)
        if last < np.inf and left > patience and budget - used >= 4:
            if not filled:
                single[:] = matrix
                filled = True
            steps, met = _direction(
                single, vectors, taus, -power, error, min(cap, budget - used - 2), state, residual, direction
            )
            used += steps
            if not met:
                return used, True
            used += _search(matrix, vectors, taus, power, tiny, state, residual, direction)
            used += passes(matrix, vectors, taus, power, tiny, tolerance * mass, 1, state)[1]
            before = used
            continue
        last, before = error, used
        used += passes(matrix, vectors, taus, power, tiny, tolerance * mass, min(every, budget - used), state)[1]
    return used, False
