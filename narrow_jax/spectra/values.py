"""All singular values with proven error bounds, and the numbers that follow from them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _rounding as fl
from narrow_jax._memory import require
from narrow_jax._operators import EvaluatedJacobian, Jacobian
from narrow_jax._typing import Array
from narrow_jax.spectra import device, host, routes, smallest


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SingularValues:
    """Singular values, descending, min(rows, columns) of them.

    Args:
        values: σ_1 ≥ σ_2 ≥ …
        error: |values − exact| ≤ error, one bound a value; infinite where nothing is proven.
        encloses: the matrix that the bounds speak of.
    """

    values: Any
    error: Any
    encloses: str = field(metadata={"static": True})

    @property
    def rank(self) -> Any:
        """Return how many are proven to be positive: a lower bound of the rank."""
        return (self.values > self.error).sum()


def singular_values(J: Any, memory_budget: int | None = None) -> SingularValues:
    """Return all singular values of J with a bound of each one's error.

    R from Jᵀ = QR by column blocks, its singular vectors U and values by the QR iteration. G = diag(σ̂)⁻¹UᵀĴ is
    nearly orthogonal; σ_i lies in σ̂_i[σ_min(G), σ_max(G)] (Ostrowski), and |σ_i² − σ̂_i²| is at most
    ‖UᵀĴĴᵀU − diag(σ̂²)‖ (Weyl). The better of the two holds for each.

    Args:
        J: an operator of ``narrow_jax.jacobian``.
        memory_budget: bytes that may be used; None sets no limit.

    Returns:
        ``SingularValues``: NumPy float64 for concrete operators; inside ``jit`` and ``vmap`` as for ``sigma_min``.

    Raises:
        TypeError: J is no operator.
        MemoryBudgetError: the plan exceeds ``memory_budget``.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> s = singular_values(jacobian.explicit(np.diag([3.0, 2.0])))
        >>> s.values.round(12).tolist(), int(s.rank)
        ([3.0, 2.0], 2)

    Reference:
        Horn and Johnson, Matrix Analysis, theorem 4.5.9 (Ostrowski); docs/enclosure.md.
    """
    smallest.require_operator(J)
    require(memory_budget, {"qr": smallest.plan(*J.shape)["qr"]}, "qr", "singular_values")
    lasting = jnp.zeros((), float).dtype
    with jax.enable_x64(True):  # before the call: NumPy's float64 would become float32 on the way in
        if smallest.traced(J):
            return _lasting(_compiled(jax.lax.stop_gradient(J)), lasting)
        if smallest.on_cpu(J):
            return jax.tree.map(np.asarray, _run(host, J.evaluate("float64"), J.encloses))
        return jax.tree.map(np.asarray, _compiled(J))


def condition_number(J: Any) -> Any:
    """Return σ_max/σ_min over the rows of J; infinity where it is rank-deficient to rounding.

    Differentiable like ``sigma_min``.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> round(float(condition_number(jacobian.explicit(np.diag([3.0, 2.0])))), 12)
        1.5
    """
    s = smallest.sigma_min(J, certify=False)
    singular = (s.status_code == smallest.result.ZERO) | (s.status_code == smallest.result.SHAPE)
    safe = jnp.where(singular, 1.0, s.value)
    ratio = jnp.where(singular, jnp.inf, s.sigma_max / safe)
    return ratio if smallest.traced(J) else np.float64(s.sigma_max / s.value if not singular else np.inf)


def effective_rank(J: Any) -> Any:
    """Return exp(−Σ p_i log p_i) with p_i = σ_i/Σσ: between 1 and the rank, and equal to it for equal values.

    Example:
        >>> import numpy as np
        >>> from narrow_jax import jacobian
        >>> round(float(effective_rank(jacobian.explicit(np.eye(3)))), 12)
        3.0

    Reference:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).
    """
    values = singular_values(J).values
    xp = jnp if smallest.traced(J) else np
    p = values / values.sum()
    return xp.exp(-(p * xp.log(xp.where(p > 0, p, 1.0))).sum())


@jax.jit
def _compiled(J: Jacobian) -> SingularValues:
    return _run(device, J.evaluate("float64"), J.encloses)


def _lasting(s: SingularValues, dtype: Any) -> SingularValues:
    """Return the values in the dtype that outlives the float64 context, their rounding added to the error."""
    if dtype == s.values.dtype:
        return s
    # casting moves a value by up to 2⁻²⁴ of it, and flushes what is below the smallest normal number
    error = (s.error + s.values * 2.0**-23 + 2 * float(jnp.finfo(dtype).tiny)).astype(dtype)
    return SingularValues(
        s.values.astype(dtype), jnp.nextafter(error, jnp.full_like(error, jnp.inf)), s.encloses
    )


def _run(algebra: ModuleType, j: EvaluatedJacobian, encloses: str) -> SingularValues:
    gram = j.gram(algebra)
    extra = gram.perturbation
    if j.shape[0] > j.shape[1]:
        transposed = j.transposed()
        # entries are rounded once where blocks are formed
        extra = fl.up(extra + 1.01 * fl.UNIT * jnp.sqrt(gram.trace))
        j, gram = transposed, transposed.gram(algebra)
    factor, _ = algebra.triangle(j, routes.block)
    vectors, values = algebra.decompose(factor)
    scale = jnp.maximum(values, jnp.max(values) * 2.0**-200 + fl.TINY)
    z = jnp.asarray(vectors).T / scale[:, None]
    n = algebra.total(lambda i: algebra.outer(algebra.matmul(z, routes.block(j, i))), j.block_count)
    return _bounds(
        z,
        vectors,
        values,
        scale,
        n,
        gram.majorant,
        extra,
        j.exponent,
        j.block_width + j.block_count,
        encloses,
    )


@functools.partial(jax.jit, static_argnames=("terms", "encloses"))
def _bounds(
    z: Array,
    vectors: Array,
    values: Array,
    scale: Array,
    n: Array,
    majorant: Array,
    extra: Array,
    exponent: Array,
    terms: int,
    encloses: str,
) -> SingularValues:
    """Ostrowski's and Weyl's bounds from N̂ = fl(GGᵀ), G = diag(scale)⁻¹UᵀĴ; ``skew`` ≥ ‖UᵀU − I‖.

    ``scale`` is σ̂, but for values so small that they cannot be divided by.
    """
    rows = values.size
    product = fl.matmul(vectors.T, vectors)
    skew = fl.up(fl.lower_norm(product - jnp.eye(rows)) + fl.gamma(rows + 1) * fl.norm_up(vectors) ** 2)
    summing = fl.gamma(terms + 2)
    defect = n - jnp.eye(rows)
    forming = fl.up((fl.gamma(rows + 2) + 3 * fl.UNIT) * jnp.sqrt(majorant))
    trace = jnp.sum(jnp.abs(jnp.diag(n))) * (1 + fl.gamma(rows + terms + 2))

    # G: ‖I − N‖ ≤ f, and the exact G differs from the computed one by forming·‖Z‖_F
    f = fl.up(fl.lower_norm(defect) + fl.UNIT * rows + summing * trace)
    loss = fl.up(forming * fl.norm_up(z))
    low = fl.down(fl.down(jnp.sqrt(fl.down(1 - f))) - loss) / jnp.sqrt(fl.up(1 + skew))
    high = fl.up((jnp.sqrt(1 + f) + loss) / jnp.sqrt(fl.down(1 - skew)))
    relative = fl.up(values * fl.up(jnp.maximum(1 - fl.down(low), high - 1) + 4 * fl.UNIT))

    # UᵀĴ = diag(σ̂)G: its Gram matrix against diag(σ̂²)
    weighted = scale[:, None] * defect * scale[None, :]
    replaced = jnp.sum(jnp.where(scale > values, scale**2, 0.0)) * 1.01
    weighted_trace = jnp.sum(scale**2 * jnp.abs(jnp.diag(n))) * (1 + fl.gamma(rows + terms + 6))
    size = jnp.sqrt(fl.up(1 + skew)) * jnp.sqrt(majorant)
    absolute = jnp.sqrt(rows) * fl.up(1 + skew) * forming
    square = fl.up(fl.lower_norm(weighted) + (summing + 4 * fl.UNIT) * weighted_trace)
    square = fl.up(square + replaced + 2 * fl.UNIT * jnp.sum(scale**2) + 2 * absolute * size + absolute**2)
    stretch = fl.up(1 / jnp.sqrt(fl.down(1 - skew)) - fl.down(1 / jnp.sqrt(fl.up(1 + skew))))
    moved = fl.up(square / jnp.maximum(values, jnp.sqrt(square)))
    weyl = fl.up(moved + (values + moved) * stretch)

    ostrowski = jnp.isfinite(relative) & (low > 0) & (scale == values)
    error = jnp.minimum(jnp.where(ostrowski, relative, jnp.inf), weyl)
    error = fl.up(jnp.where(jnp.isnan(error), jnp.inf, error) + extra)
    scaled, error = jnp.ldexp(values, exponent), jnp.ldexp(error, exponent) + smallest.NORMAL
    return SingularValues(scaled, jnp.where(jnp.isfinite(scaled), error, jnp.inf), encloses)
