"""Normalisation of inputs as pure values: fit on training rows, apply to any rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import HostArray

# On deviations, of columns scaled to deviation one. Above the rounding of float32 pixels (1e-8), below what tells
# any two columns of real images apart.
_CONSTANT_BELOW = 1e-6
_ROUNDING = 1e-12  # a deviation this small beside the mean is what float64 sums leave of equal entries
_TINY, _HUGE = 1e-150, 1e150  # whose squares float64 holds
_SMALLEST = 1e-300  # whose reciprocal float64 holds
_BLOCK_ROWS = 4096


class Normalizer(NamedTuple):
    """An affine map of inputs, z = ((x − mean)·factor)[kept], after the map ``before``, if there is one.

    With ``norm`` each row is then scaled to that Euclidean norm.

    All are float64 NumPy arrays, so that narrow directions keep their digits; as a pytree of arrays the map passes
    through ``jit``. That of a ``Dataset`` is the whole map from the rows as they were stored, such as pixels from 0 to
    255, to its x.

    Attributes:
        mean: (d,), what is taken off each column.
        factor: one number, one a column (d,), or a matrix (d, r).
        kept: columns of the result that are kept (r,), in ascending order; None for all. ``standardize`` drops
            constant columns.
        before: the map whose result, in float32, is the x of this one; None where there is none.
        norm: what the rows of the result are scaled to; None to leave them.
    """

    mean: HostArray
    factor: HostArray
    kept: HostArray | None = None
    before: Normalizer | None = None
    norm: HostArray | None = None

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())

    @overload
    def apply(self, x: np.ndarray) -> np.ndarray: ...
    @overload
    def apply(self, x: jax.Array) -> jax.Array: ...
    def apply(self, x: HostArray) -> HostArray:
        """Return the rows of x under the map.

        NumPy rows, of any real dtype, are mapped in float64 and come back as float32. JAX rows, traced or not, are
        mapped in their own dtype: for ill-conditioned data map before moving to the device.

        Args:
            x: Rows (n, d) with the d that the map was fitted to, or images (n, height, width, channels) of d pixels.

        Returns:
            Mapped rows (n, r): r = d, or the number of directions or columns that are kept.

        Raises:
            ValueError: x has another number of columns.
            TypeError: x is a JAX array of integers, or no array of numbers.

        Example:
            >>> train, test = np.array([[0.0], [2.0]]), np.array([[4.0]])
            >>> standardize(train).apply(test).tolist()
            [[3.0]]
        """
        x = x if isinstance(x, jax.Array) else _numbers("x", x)
        rows = x.reshape(x.shape[0], -1) if x.ndim > 2 else x
        columns = self._columns()
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise ValueError(
                f"x has shape {x.shape}; expected (n, {columns}), the columns that the normalizer was fitted to"
            )
        if isinstance(rows, np.ndarray):
            return self._in_float32(rows)
        _checks.floating_dtype(rows.dtype)
        return self._device_rows(rows)

    def _in_float32(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            mapped = np.concatenate([self._host_rows(block) for block in _row_blocks(x)])
        if np.isinf(mapped).any() and np.isfinite(x).all():
            raise ValueError(
                f"x has entries from {x.min():.3g} to {x.max():.3g}, which the map takes beyond float32; expected "
                "smaller ones: scale them, or pass normalize='standardize' in training"
            )
        return mapped

    def _columns(self) -> int:
        return self.mean.shape[0] if self.before is None else self.before._columns()

    def _host_rows(self, x: np.ndarray) -> np.ndarray:
        x = x if self.before is None else self.before._host_rows(x)
        centred = x.astype(np.float64) - self.mean
        mapped = centred @ self.factor if self.factor.ndim == 2 else centred * self.factor
        mapped = mapped if self.kept is None else mapped[:, self.kept]
        if self.norm is not None:
            mapped = mapped * (self.norm / _norms(mapped))
        return np.asarray(mapped, dtype=np.float32)

    def _device_rows(self, x: jax.Array) -> jax.Array:
        x = x if self.before is None else self.before._device_rows(x)
        mean, factor = (jnp.asarray(part, dtype=x.dtype) for part in (self.mean, self.factor))
        centred = x - mean[None, :]
        if factor.ndim == 2:
            mapped = jnp.matmul(centred, factor, precision=jax.lax.Precision.HIGHEST)
        else:
            mapped = centred * (factor[None, :] if factor.ndim else factor)
        if self.kept is not None:
            mapped = jnp.take(mapped, jnp.asarray(self.kept).astype(int), axis=1)
        if self.norm is None:
            return mapped
        return mapped * (jnp.asarray(self.norm, x.dtype) / jnp.linalg.norm(mapped, axis=1, keepdims=True))

    def invert(self, z: HostArray) -> np.ndarray:
        """Return the rows x that the map takes to z, in float64: for maps that lose nothing, such as those of targets.

        Raises:
            ValueError: a map that drops columns, mixes them, or forgets norms.

        Example:
            >>> standardize(np.array([[0.0], [2.0]])).invert(np.array([[3.0]])).tolist()
            [[4.0]]
        """
        if self.factor.ndim == 2 or self.kept is not None or self.norm is not None:
            raise ValueError(
                "this normalizer drops or mixes columns, or scales rows, and has no inverse; expected one of each "
                "column by itself, such as standardize makes of columns that vary"
            )
        x = np.asarray(z, np.float64) / self.factor + self.mean
        return x if self.before is None else self.before.invert(x)

    def to_arrays(self) -> dict[str, Any]:
        """Return the map as arrays by name, in a dictionary in a dictionary for ``before``: to be saved.

        Example:
            >>> scale(np.array([[1.0, 3.0]])).to_arrays()
            {'mean': array([2., 2.]), 'factor': array(1.)}
        """
        parts = {name: part for name, part in self._asdict().items() if part is not None}
        return parts if self.before is None else parts | {"before": self.before.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Normalizer:
        """Return the map that ``to_arrays`` was called on.

        Raises:
            ValueError: other names.
        """
        if unknown := set(arrays) - set(cls._fields) or {"mean", "factor"} - set(arrays):
            raise ValueError(
                f"a normalizer has the arrays {', '.join(cls._fields)}, of which mean and factor are needed; got "
                f"{', '.join(arrays)} ({', '.join(sorted(unknown))} wrong): read the file that `narrow-jax train` wrote"
            )
        before = arrays.get("before")
        return cls(**{**arrays, "before": None if before is None else cls.from_arrays(before)})


def _norms(rows: np.ndarray) -> np.ndarray:
    """Return the norm of each row as a column; a zero row has no direction."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(
            f"sample {int(np.argmin(norms))} is zero and has no direction; expected rows that can be scaled to one "
            "norm: leave the sphere out, or the sample"
        )
    return norms


class Transformer(NamedTuple):
    """A map of the user's: any fitted object with ``transform``, such as scikit-learn's, after the map ``before``."""

    fitted: Any
    before: Normalizer | None

    def __repr__(self) -> str:
        """Return one line."""
        return f"{type(self).__name__}({type(self.fitted).__name__})"

    def apply(self, x: HostArray) -> np.ndarray:
        """Return the rows of x under the map, float32.

        Raises:
            ValueError, TypeError: as ``Normalizer.apply``, or what the object makes is no matrix of finite numbers.
        """
        given = np.asarray(x)
        given = given.reshape(len(given), -1) if self.before is None else self.before.apply(given)
        rows = self.fitted.transform(given)
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        mapped = _numbers(f"what {type(self.fitted).__name__}.transform returns", rows)
        if mapped.ndim != 2 or len(mapped) != len(x):
            raise ValueError(
                f"{type(self.fitted).__name__}.transform makes {mapped.shape} of {np.shape(x)}; expected one row of "
                "numbers a sample: pass another transformer"
            )
        _checks.finite(f"what {type(self.fitted).__name__}.transform returns", mapped)
        return mapped.astype(np.float32)


def pixels(columns: int, levels: int | None) -> Normalizer:
    """Return the map of pixels from 0 to ``levels`` to [0, 1]; that of other inputs, without levels, to themselves.

    Example:
        >>> pixels(2, 255).apply(np.array([[0, 51]], np.uint8)).tolist()
        [[0.0, 0.20000000298023224]]
    """
    return Normalizer(np.zeros(columns), np.asarray(1 / levels if levels else 1.0))


@host_only
def standardize(x: HostArray) -> Normalizer:
    """Return the map of each column to mean 0 and deviation 1; constant columns are dropped.

    z_j = (x_j − μ_j)/s_j with mean μ_j and deviation s_j of column j, as scikit-learn's StandardScaler. A column is
    constant if its training rows are equal to 1e-12 of their size, or to 1e-300; ``kept`` of the map names the others.

    Args:
        x: Training rows (n, d).

    Returns:
        The fitted map.

    Raises:
        ValueError: no rows, non-finite entries, or all rows equal.

    Example:
        >>> x = np.array([[1.0, 7.0, 1e-5], [3.0, 7.0, 3e-5]])
        >>> standardize(x).apply(x).round(6).tolist(), standardize(x).kept.tolist()
        ([[-1.0, -1.0], [1.0, 1.0]], [0, 2])
    """
    host = _rows("standardize", x)
    low, high = (end.astype(np.float64) for end in (host.min(axis=0), host.max(axis=0)))
    varies = high - low > np.maximum(_ROUNDING * np.maximum(-low, high), _SMALLEST)
    if not varies.any():
        raise _no_variation("standardize", host)
    # from the least entry and in units of the span: neither a large mean nor squares cost digits
    span = np.where(varies, high - low, 1)
    mean = _mean_of_blocks(lambda block: (block - low) / span, host)
    variance = _mean_of_blocks(lambda block: ((block - low) / span - mean) ** 2, host)
    factor = np.zeros_like(span)
    factor[varies] = 1 / (span * np.sqrt(variance))[varies]
    return Normalizer(low + span * mean, factor, None if varies.all() else np.flatnonzero(varies))


@host_only
def scale(x: HostArray) -> Normalizer:
    """Return the map to mean 0 and deviation 1 over all entries together.

    z = (x − μ)/s with one mean μ and one deviation s for the whole array: pixels keep their relations.

    Args:
        x: Training rows (n, d).

    Returns:
        The fitted map.

    Raises:
        ValueError: no rows, non-finite entries, or all entries equal.

    Example:
        >>> x = np.array([[1.0, 2.0], [3.0, 4.0]])
        >>> z = scale(x).apply(x)
        >>> abs(float(z.mean())) < 1e-6, round(float(z.std()), 6)
        (True, 1.0)
    """
    host = _rows("scale", x)
    mean = host.mean(dtype=np.float64)
    deviation = host.std(dtype=np.float64)
    if deviation <= max(_ROUNDING * abs(mean), _TINY):
        raise ValueError(
            f"scale: all {host.size} entries of x are {mean:.6g}, to 1e-12 of their size or to 1e-150, so their "
            "deviation is 0; expected entries that vary: scale them up, or use these data unnormalised"
        )
    return Normalizer(np.full(host.shape[1], mean), np.asarray(1 / deviation))


@host_only
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
    # by powers of two near each column's span, whose squares do not underflow
    scales = np.frexp(host.max(axis=0).astype(np.float64) - host.min(axis=0).astype(np.float64))[1]
    covariance = _covariance(host, mean, scales)
    deviations = np.sqrt(np.diag(covariance))
    wide = np.ldexp(deviations, scales)
    varies = wide > np.maximum(_ROUNDING * np.abs(mean), _SMALLEST)
    if not varies.any():
        raise _no_variation("whiten", host)
    # Columns of deviation one first: in their own units a narrow column would be lost beside a wide one
    units = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=varies)
    variances, directions = np.linalg.eigh(units[:, None] * covariance * units[None, :])
    # The eigenvalues of a constant direction are rounding of either sign, 1e-16 of the greatest
    keep = variances > _CONSTANT_BELOW**2 * variances[-1]
    roots, kept = np.sqrt(variances[keep]), directions[:, keep]
    white = np.ldexp(units[:, None] * kept / roots, -scales[:, None])
    shares = np.ldexp(deviations, scales - scales[varies].max())
    back = roots[:, None] * kept.T * shares[None, :]  # x − μ = z·back, but for a power of two
    factor = white @ np.linalg.eigh(back @ back.T)[1][:, ::-1]
    signs = np.sign(factor[np.abs(factor).argmax(axis=0), np.arange(len(roots))])
    return Normalizer(mean, factor * signs)


def _rows(what: str, x: HostArray) -> np.ndarray:
    host = _numbers("x", x)
    _checks.samples(host, host)
    _checks.finite("x", host)
    if host.ndim != 2 or not host.size:
        raise ValueError(
            f"{what}: x has shape {host.shape}; expected (n, d), d ≥ 1: flatten each sample to a row"
        )
    if max(-float(host.min()), float(host.max())) > _HUGE:
        raise ValueError(
            f"{what}: x has entries from {host.min():.3g} to {host.max():.3g}, whose squares overflow; expected "
            f"entries up to {_HUGE:g}: scale them down first"
        )
    return host


def _numbers(what: str, x: Any) -> np.ndarray:
    if np.ma.is_masked(x):
        _checks.array(what, x)  # says that the mask would be ignored
    host = np.asarray(x)
    if host.dtype.kind not in "biu" and not jnp.issubdtype(host.dtype, jnp.floating):
        raise TypeError(
            f"{what} is {type(x).__name__} of {host.dtype}; expected an array of real numbers, one row a sample: "
            "convert words and categories to numbers first"
        )
    return host


def _no_variation(what: str, host: np.ndarray) -> ValueError:
    return ValueError(
        f"{what}: all {len(host)} rows of x are equal, to 1e-12 of their size or to 1e-300; expected rows that vary: "
        "load more samples, take a common offset off them, or use these data unnormalised"
    )


def _row_blocks(x: np.ndarray) -> list[np.ndarray]:
    return [x[start : start + _BLOCK_ROWS] for start in range(0, max(len(x), 1), _BLOCK_ROWS)]


def _mean_of_blocks(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return the mean over the rows, without a second copy of the data in float64."""
    total = np.zeros(x.shape[1])
    for block in _row_blocks(x):
        total += function(block.astype(np.float64)).sum(axis=0)
    return total / len(x)


def _covariance(x: np.ndarray, mean: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the covariance of the columns divided by 2^scales."""
    covariance = np.zeros((x.shape[1], x.shape[1]))
    for block in _row_blocks(x):  # no second copy of the data in float64
        centred = np.ldexp(block - mean, -scales)
        covariance += centred.T @ centred
    return covariance / len(x)
