"""Monitors: quantities that ``fit`` carries along a run and records beside the loss.

A monitor is a pair of pure functions: ``init(params, x) -> state`` and ``update(state, params, x) ->
(state, value)`` with a scalar value. They run inside the compiled training loop, at every record.

Those that watch a run against a theorem are beside it: ``nj.certificates.GradientDescentBound``, ``LossBound`` and
``PyramidalInvariants``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from narrow_jax._typing import Array, Params
from narrow_jax.spectra import tracking

__all__ = ["Monitor", "SigmaMinMonitor"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


class Monitor(NamedTuple):
    """A named pair of pure functions; ``name`` is the key of its values in the history.

    Example:
        >>> import jax.numpy as jnp
        >>> largest = Monitor("largest weight", lambda params, x: (),
        ...                   lambda state, params, x: (state, jnp.max(jnp.abs(params["w"]))))
    """

    name: str
    init: Callable[[Params, Array], Any]
    update: Callable[[Any, Params, Array], tuple[Any, Array]]


class SigmaMinMonitor(Monitor):
    """σ_min of ``jacobian(params, x)`` along training, from the last vector and a kept inverse of JJᵀ.

    Records ‖Jᵀu‖ for a unit u that nearly minimises it: an upper bound of σ_min, an estimate whose relative
    error is of the order of the squared residual (3e-2)². The inverse is made anew when the residual says that
    it is stale; NaN where it does not settle then either. 0 at once for more rows than columns, n·k > d·m. Memory: two
    n·k × n·k matrices. For a proven value at one point use ``nj.sigma_min``.

    Args:
        jacobian: an operator's constructor, such as ``nj.jacobian.pairwise``.
        name: the key in the history; each of several monitors of a run needs one of its own.

    Example:
        >>> import jax, optax
        >>> import narrow_jax as nj
        >>> x, y = jax.random.normal(jax.random.key(0), (6, 4)), jax.numpy.ones((6, 1))
        >>> params = nj.initializers.mirrored_lecun(jax.random.key(1), inputs=4, width=8)
        >>> result = nj.fit(nj.models.pairwise_apply, params, optax.sgd(1e-2), (x, y), steps=4,
        ...                 monitors=[SigmaMinMonitor(nj.jacobian.pairwise)])
        >>> result.history["sigma_min"].shape
        (5,)
    """

    def __new__(cls, jacobian: Callable[[Params, Array], Any], name: str = "sigma_min") -> SigmaMinMonitor:
        """Return the monitor of this Jacobian."""
        return super().__new__(
            cls,
            name,
            lambda params, x: tracking.start(*jacobian(params, x).shape),
            lambda tracked, params, x: tracking.look(tracked, jacobian(params, x)),
        )


def require_certificate(certificate: object, kind: type, maker: str) -> None:
    """Require the certificate that a monitor watches a run against."""
    if not isinstance(certificate, kind):
        raise TypeError(
            f"certificate is {type(certificate).__name__}; expected {kind.__name__}: pass what "
            f"nj.certificates.{maker} returns"
        )
