"""A start for which Theorem 3.2 of Nguyen and Mondelli holds on the given data (section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, activations, certificates, initializers
from narrow_jax._host import host_only
from narrow_jax._printing import brief
from narrow_jax._typing import Array, HostArray, Key, Params
from narrow_jax.activations import Activation
from narrow_jax.certificates import Constants, PyramidalCertificate, StartNorms, check_start

ROOM = 1.1
"""The scale found is at most that factor above the smallest: the room in which ν can be positive."""

LARGEST, SMALLEST = 2.0**60, 2.0**-200
"""Where the searches for the scale and for the variance give up; float32 holds both."""

MARGIN = 1e-4
"""In log10, what both conditions keep while ν grows: more than float32's rounding of the weights moves them."""


class PyramidalStart(NamedTuple):
    """A start, how it was made, and what is proven of it.

    Fields:
        params: ``{"w1": (d, n_1), …}``.
        certificate: of these params on these data: look at ``holds`` first.
        first_scale: what the draw of W_1 was multiplied by: 1 for L ≥ 3.
        scale: c of section 3.1, 1 for L = 2.
        variance: ν of section 3.1, 0 where nothing above 0 was found.
    """

    params: Params
    certificate: PyramidalCertificate
    first_scale: float
    scale: float
    variance: float

    def __repr__(self) -> str:
        """Return one line, arrays by their shapes."""
        return brief(type(self).__name__, self._asdict())


@host_only
def pyramidal_start(
    key: Key[Array, ""],
    x: HostArray,
    y: HostArray,
    widths: Sequence[int],
    activation: str | Activation,
    variant: str = "identity",
    dtype: DTypeLike = jnp.float32,
) -> PyramidalStart:
    """Search a start for which conditions (4) and (5) hold on these data, as section 3.1 constructs it.

    With ν = 0, where the output is 0, the smallest scale: c of W_3 … W_L, or for L = 2, where there is no c, the scale
    of W_1, with which the margin of (4) grows linearly. It is found to within 10 %; then the largest variance ν of
    W_2 that leaves both conditions true. Where no start is found (equal samples, targets too large), the certificate
    of the last one says why.

    Args:
        key: a JAX random key.
        x: data (N, d).
        y: targets (N, n_L).
        widths: n_1 … n_L with n_1 ≥ N and n_2 ≥ … ≥ n_L.
        activation: σ with its constants, such as ``nj.activations.smooth_leaky_relu(0.5, 1.0)``.
        variant: "identity" or "gaussian", of W_3 … W_L as in ``nj.initializers.pyramidal``.
        dtype: of the weights.

    Raises:
        ValueError, TypeError: as ``nj.initializers.pyramidal`` and ``nj.certificates.pyramidal``.

    Example:
        >>> import jax, narrow_jax as nj
        >>> sigma = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
        >>> x = jax.random.normal(jax.random.key(0), (4, 6))
        >>> found = pyramidal_start(jax.random.key(1), x, x[:, :1] / 100, (40, 3, 1), sigma)
        >>> found.certificate.holds, found.variance > 0
        (True, True)

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", section 3.1.
    """
    _checks.choice("variant", variant, ("identity", "gaussian"))
    sigma = activations.get(activation)
    x = _checks.real_matrix("x", x)
    drawn = initializers.pyramidal(
        key, inputs=x.shape[1], widths=widths, variant=variant, variance=1.0, dtype=dtype
    )
    check_start(drawn, x, y)

    def make(scale: float, variance: float) -> Params:
        return _scaled(drawn, scale, math.sqrt(variance))

    def margin(scale: float, variance: float) -> float:
        return _margin(StartNorms.of(make(scale, variance), x, y, sigma), sigma)

    shallow = len(widths) == 2
    if shallow:
        scale = _smallest_scale(lambda value: margin(value, 0.0) >= MARGIN)
    else:
        base = StartNorms.of(make(1.0, 0.0), x, y, sigma)
        scale = _smallest_scale(lambda value: _margin(_with_scale(base, value), sigma) >= MARGIN)
    variance = 0.0
    if margin(scale, 0.0) >= MARGIN:
        variance = _largest_variance(lambda value: margin(scale, value) >= MARGIN)
    params = make(scale, variance)
    return PyramidalStart(
        params=params,
        certificate=certificates.pyramidal(params, x, y, sigma),
        first_scale=scale if shallow else 1.0,
        scale=1.0 if shallow else scale,
        variance=variance,
    )


def _scaled(drawn: Params, scale: float, deviation: float) -> Params:
    """Return the draw with W_2 times ``deviation``, and W_3 … W_L, or W_1 if there are none, times ``scale``."""
    factors = dict.fromkeys(drawn, scale) | {"w1": 1.0 if "w3" in drawn else scale, "w2": deviation}
    return _products(drawn, {name: jnp.asarray(factors[name], w.dtype) for name, w in drawn.items()})


@jax.jit
def _products(params: Params, factors: Params) -> Params:
    return jax.tree.map(jnp.multiply, params, factors)


def _with_scale(base: StartNorms, scale: float) -> StartNorms:
    """Return the numbers of the start with W_3 … W_L times ``scale``, for ν = 0: the output stays 0."""
    grow = 1 + 1e-6  # float32's rounding of the scaled weights
    return base._replace(
        norms=(*base.norms[:2], *(scale * grow * norm for norm in base.norms[2:])),
        smallest=(*base.smallest[:2], *(scale / grow * value for value in base.smallest[2:])),
    )


def _margin(start: StartNorms, sigma: Activation) -> float:
    constants = Constants.of(start, sigma)
    return min(constants.condition4, constants.condition5)


def _smallest_scale(holds: Callable[[float], bool]) -> float:
    """Return a scale ≥ 1 at most ROOM above the smallest that holds, or the last that was tried."""
    low, high = 1.0, 1.0
    while not holds(high) and high < LARGEST:
        low, high = high, 4 * high
    while high > ROOM * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _largest_variance(holds: Callable[[float], bool]) -> float:
    """Return a variance within a factor 2 of the largest that holds, 0 if even the smallest does not."""
    low, high = SMALLEST, 1.0
    if holds(high):
        return high
    if not holds(low):
        return 0.0
    while high > 2 * low:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
