"""Draws of the starting weights: ``(key, sizes) -> params``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, projections
from narrow_jax._typing import Array, Float, Key


def lecun(
    key: Key[Array, ""], *, inputs: int, width: int, outputs: int = 1, dtype: DTypeLike = jnp.float32
) -> dict[str, Array]:
    """Draw the weights of a standard net: w ~ N(0, 1/d), v ~ N(0, 1/m).

    Args:
        key: a JAX random key.
        inputs: d.
        width: m.
        outputs: k.
        dtype: of the weights.

    Returns:
        ``{"w": (d, m), "v": (m, k)}``.

    Raises:
        ValueError: a size below 1, or float64 while x64 is off.

    Example:
        >>> params = lecun(jax.random.key(0), inputs=20, width=40)
        >>> params["w"].shape, params["v"].shape
        ((20, 40), (40, 1))
    """
    _checks.count("width", width)
    return _normal_weights(key, inputs, width, width, outputs, dtype)


def mirrored_lecun(
    key: Key[Array, ""],
    *,
    inputs: int,
    width: int,
    outputs: int = 1,
    zeta: float = 1e-3,
    kappa: float = jnp.inf,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Draw the weights of a pairwise net whose output is exactly 0 everywhere and whose v is feasible.

    Half of w is drawn, w ~ N(0, 1/d), and copied; v ~ N(0, 1/m). At the mirrored point the sign of v_j can
    be moved into its pair, so for one output |v| is taken: the paper's cone ``v ≥ ζ, max v / min v ≤ κ``
    then holds after one projection that does not destroy the start. With several outputs one sign a pair
    cannot serve all of them: the drawn sign pattern stays and the magnitudes are projected.

    Args:
        key: a JAX random key.
        inputs: d.
        width: m, even: h = m/2 pairs.
        outputs: k.
        zeta: ζ > 0.
        kappa: κ ≥ 1.
        dtype: of the weights.

    Returns:
        ``{"w": (d, m), "v": (h, k)}``; columns j and h + j of w are equal.

    Raises:
        ValueError: odd width, a size below 1, ζ ≤ 0, κ < 1, or float64 while x64 is off.

    Example:
        >>> params = mirrored_lecun(jax.random.key(0), inputs=20, width=40)
        >>> bool((params["w"][:, :20] == params["w"][:, 20:]).all()), bool((params["v"] >= 1e-3).all())
        (True, True)

    Reference:
        "When Expressivity Meets Trainability", Algorithm 1.
    """
    _checks.even_width(width)
    half = _normal_weights(key, inputs, width // 2, width, outputs, dtype)
    signs = jnp.ones_like(half["v"]) if outputs == 1 else projections.sign_pattern(half["v"])
    v = projections.ratio_cone(jnp.abs(half["v"]) * signs, zeta, kappa, signs)
    return {"w": jnp.concatenate([half["w"], half["w"]], axis=1), "v": v}


def _normal_weights(
    key: Key[Array, ""], inputs: int, hidden: int, fan_in: int, outputs: int, dtype: DTypeLike
) -> dict[str, Float[Array, "_ _"]]:
    _checks.count("inputs", inputs)
    _checks.count("outputs", outputs)
    dtype = _checks.floating_dtype(dtype)
    key_w, key_v = jax.random.split(key)
    return {
        "w": jax.random.normal(key_w, (inputs, hidden), dtype) / jnp.sqrt(inputs).astype(dtype),
        "v": jax.random.normal(key_v, (hidden, outputs), dtype) / jnp.sqrt(fan_in).astype(dtype),
    }
