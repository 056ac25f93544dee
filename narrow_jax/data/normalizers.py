"""Normalisation of inputs as pure values: fit on training rows, apply to any rows."""

from __future__ import annotations

from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._typing import HostArray

# On deviations, of columns scaled to deviation one. Above the rounding of float32 pixels (1e-8), below what tells
# any two columns of real images apart.
_CONSTANT_BELOW = 1e-6
_ROUNDING = 1e-12  # a deviation this small beside the mean is what float64 sums leave of equal entries
_BLOCK_ROWS = 4096


class Normalizer(NamedTuple):
    """An affine map of inputs: z = (x − mean)·factor, a matrix product where the factor is a matrix.

    Both are float64 NumPy arrays, so that narrow directions keep their digits; as a pytree of arrays the
    map passes through ``jit``.
    """

    mean: HostArray
    factor: HostArray

    @overload
    def apply(self, x: np.ndarray) -> np.ndarray: ...
    @overload
    def apply(self, x: jax.Array) -> jax.Array: ...
    def apply(self, x: HostArray) -> HostArray:
        """Return the rows of x under the map.

        NumPy rows are mapped in float64 and come back as float32. JAX rows, traced or not, are mapped in
        their own dtype: for ill-conditioned data map before moving to the device.

        Args:
            x: Rows (n, d) with the d that the map was fitted to.

        Returns:
            Mapped rows (n, r): r = d, or the number of directions that ``whiten`` kept.

        Raises:
            ValueError: x has another number of columns.
            TypeError: x is a JAX array of integers.

        Example:
            >>> train, test = np.array([[0.0], [2.0]]), np.array([[4.0]])
            >>> standardize(train).apply(test).tolist()
            [[3.0]]
        """
        if self.factor.ndim == 2 and (x.ndim != 2 or x.shape[1] != self.factor.shape[0]):
            raise ValueError(
                f"x has shape {x.shape}; expected (n, {self.factor.shape[0]}), "
                "the columns that the normalizer was fitted to"
            )
        if isinstance(x, np.ndarray):
            return np.concatenate([self._host_rows(block) for block in _row_blocks(x)])
        _checks.floating_dtype(x.dtype)
        mean, factor = (jnp.asarray(part, dtype=x.dtype) for part in self)
        if factor.ndim == 2:
            return jnp.matmul(x - mean[None, :], factor, precision=jax.lax.Precision.HIGHEST)
        return (x - mean) * factor

    def _host_rows(self, x: np.ndarray) -> np.ndarray:
        centred = x.astype(np.float64) - self.mean
        mapped = centred @ self.factor if self.factor.ndim == 2 else centred * self.factor
        return np.asarray(mapped, dtype=np.float32)


def standardize(x: HostArray) -> Normalizer:
    """Return the map to mean 0 and deviation 1 over all entries together.

    z = (x − μ)/s with one mean μ and one deviation s for the whole array.

    Args:
        x: Training rows (n, d).

    Returns:
        The fitted map.

    Raises:
        ValueError: no rows, non-finite entries, or all entries equal.

    Example:
        >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> z = standardize(x).apply(x)
        >>> abs(float(z.mean())) < 1e-6, round(float(z.std()), 6)
        (True, 1.0)
    """
    host = _rows("standardize", x)
    mean = host.mean(dtype=np.float64)
    deviation = host.std(dtype=np.float64)
    if deviation <= _ROUNDING * abs(mean):
        raise ValueError(
            f"standardize: all {host.size} entries of x are {mean:.6g}, so their deviation is 0; "
            "expected entries that vary: use these data unnormalised"
        )
    return Normalizer(np.asarray(mean), np.asarray(1 / deviation))


def whiten(x: HostArray) -> Normalizer:
    """Return the map to uncorrelated coordinates of mean 0 and variance 1 (PCA whitening).

    With the covariance (X − 1μᵀ)ᵀ(X − 1μᵀ)/n = V Λ Vᵀ of the n training rows, z = (x − μ)·V·Λ^(−1/2).
    Directions whose deviation, with the columns scaled to deviation one, is below 1e-6 of the greatest count as
    constant and are dropped, so r ≤ min(n − 1, d) coordinates remain, widest direction first. Each column of the
    factor has its largest entry positive. On the 1,797 digits r = 61.

    Args:
        x: Training rows (n, d).

    Returns:
        The fitted map, its factor (d, r).

    Raises:
        ValueError: no rows, non-finite entries, or all rows equal.

    Example:
        >>> x = np.array([[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [0.0, 4.0, 5.0], [2.0, 4.0, 5.0]])
        >>> whiten(x).apply(x).tolist()
        [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """
    host = _rows("whiten", x)
    mean = host.mean(axis=0, dtype=np.float64)
    covariance = _covariance(host, mean)
    deviations = np.sqrt(np.diag(covariance))
    varies = deviations > _ROUNDING * np.abs(mean)
    if not varies.any():
        raise ValueError(
            f"whiten: all {len(host)} rows of x are equal; expected rows that vary: load more samples, or "
            "use these data unnormalised"
        )
    # Columns of deviation one first: in their own units a narrow column would be lost beside a wide one
    units = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=varies)
    variances, directions = np.linalg.eigh(units[:, None] * covariance * units[None, :])
    # The eigenvalues of a constant direction are rounding of either sign, 1e-16 of the greatest
    keep = variances > _CONSTANT_BELOW**2 * variances[-1]
    roots, kept = np.sqrt(variances[keep]), directions[:, keep]
    white = units[:, None] * kept / roots
    back = roots[:, None] * kept.T * deviations[None, :]  # x − μ = z·back
    factor = white @ np.linalg.eigh(back @ back.T)[1][:, ::-1]
    signs = np.sign(factor[np.abs(factor).argmax(axis=0), np.arange(len(roots))])
    return Normalizer(mean, factor * signs)


def _rows(what: str, x: HostArray) -> np.ndarray:
    _checks.samples(x, x)
    _checks.finite("x", x)
    host = np.asarray(x)
    if host.ndim != 2 or not host.size:
        raise ValueError(
            f"{what}: x has shape {host.shape}; expected (n, d), d ≥ 1: flatten each sample to a row"
        )
    return host


def _row_blocks(x: np.ndarray) -> list[np.ndarray]:
    return [x[start : start + _BLOCK_ROWS] for start in range(0, max(len(x), 1), _BLOCK_ROWS)]


def _covariance(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for block in _row_blocks(x):  # no second copy of the data in float64
        centred = block - mean
        covariance += centred.T @ centred
    return covariance / len(x)
