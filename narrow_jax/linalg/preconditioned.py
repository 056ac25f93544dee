"""Solutions and the smallest eigenpairs of a symmetric positive matrix from its products and an approximate inverse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg
from scipy.linalg import blas

from narrow_jax._typing import Float
from narrow_jax.linalg import lanczos
from narrow_jax.linalg.algebra import Ritz

Apply = Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " n"]]

STEPS = 150
"""Vectors of the space in which eigenpairs are looked for, at most."""

APART = 0.1
"""What the second eigenvalue may be off, relative to its distance from the first: it says where a shift may lie."""


def conjugate_gradients(
    apply: Apply, inverse: Apply, b: Float[np.ndarray, " n"], tolerance: float, steps: int
) -> Float[np.ndarray, " n"]:
    """Return x with ‖b − Ax‖ ≤ tolerance·‖b‖, or what is reached after so many steps.

    Reference:
        Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).
    """
    x, r = np.zeros_like(b), b.copy()
    goal = tolerance * blas.dnrm2(b)
    z = inverse(r)
    p, size = z, blas.ddot(r, z)
    for _ in range(steps):
        if not (blas.dnrm2(r) > goal and size > 0):
            break
        image = apply(p)
        curvature = blas.ddot(p, image)
        if not curvature > 0:  # A is singular, or not positive: nothing is gained there
            break
        along = size / curvature
        x, r = x + along * p, r - along * image
        z = inverse(r)
        before, size = size, blas.ddot(r, z)
        p = z + (size / before) * p
    return x


def smallest(apply: Apply, inverse: Apply, rows: int, tolerance: float) -> Ritz:
    """Return the smallest eigenpair of A by Davidson's method, as the largest of A⁻¹: values are inverted.

    It stops where res² is below ``tolerance``·θ₁(θ₂ − θ₁), which bounds the relative error of θ₁, or where rounding
    lets the residual fall no further. The first vector is drawn from all bits of an image, as for ``lanczos``. The next
    value is diminished by its residual.

    Reference:
        Davidson, "The iterative calculation of a few of the lowest eigenvalues …" (1975).
    """
    steps = min(rows, STEPS)
    basis, images = (np.zeros((rows, steps), order="F") for _ in range(2))
    square = np.zeros((steps, steps))
    image = np.ascontiguousarray(inverse(lanczos.start_vector(rows)))
    direction = inverse(lanczos.drawn(image))
    for k in range(steps):
        basis[:, k] = _beside(basis[:, :k], direction, image, k)
        images[:, k] = apply(basis[:, k])
        square[k, : k + 1] = blas.dgemv(1.0, images[:, : k + 1], basis[:, k], trans=1)
        square[: k + 1, k] = square[k, : k + 1]
        values, vectors = linalg.eigh(square[: k + 1, : k + 1])
        space = [
            (basis[:, : k + 1], images[:, : k + 1], values[i], vectors[:, i]) for i in range(min(2, k + 1))
        ]
        residuals = [_residual(*pair) for pair in space]
        sizes = [blas.dnrm2(r) for r in residuals] + [0.0]
        second = values[1] if k else 0.0
        gap = max(second - values[0], 2.0**-40 * second)
        error = (sizes[0] / values[0]) ** 2 * values[0] / gap if k else np.inf
        converged = error < tolerance and sizes[1] <= APART * gap
        if k + 1 == rows or converged:
            break
        direction = inverse(residuals[int(k > 0 and error < tolerance)])
    vector = blas.dgemv(1.0, basis[:, : k + 1], vectors[:, 0])
    floor = max(2.0**-60 * values[-1], np.finfo(float).tiny)  # what is below is rounding, and may be negative
    first, below = (1 / max(value, floor) for value in (values[0], max(second - sizes[1], values[0])))
    found = bool((converged or k + 1 == rows) and values[0] > floor)
    return Ritz(vector / blas.dnrm2(vector), first, below if rows > 1 else 0.0, found)


def _residual(
    basis: np.ndarray, images: np.ndarray, value: float, vector: np.ndarray
) -> Float[np.ndarray, " n"]:
    return blas.dgemv(1.0, images, vector) - value * blas.dgemv(1.0, basis, vector)


def _beside(
    basis: Float[np.ndarray, "n k"], direction: Float[np.ndarray, " n"], image: np.ndarray, count: int
) -> Float[np.ndarray, " n"]:
    """Return the unit vector of the direction orthogonal to the basis, or a drawn one where nothing of it is left."""
    for candidate in (direction, lanczos.drawn(image, count + 1)):
        size, w = blas.dnrm2(candidate), candidate
        for _ in range(2 if count else 0):
            w = blas.dgemv(-1.0, basis, blas.dgemv(1.0, basis, w, trans=1), beta=1.0, y=w)
        left = blas.dnrm2(w)
        if left > 2.0**-46 * size:
            break
    w = w / left
    if count:  # of a direction that was nearly in the space
        w = blas.dgemv(-1.0, basis, blas.dgemv(1.0, basis, w, trans=1), beta=1.0, y=w)
    return w / blas.dnrm2(w)
