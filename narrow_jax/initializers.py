"""Draws of the starting weights: ``(key, sizes) -> params``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from narrow_jax import _checks, projections
from narrow_jax._typing import Array, Float, Key

__all__ = ["PYRAMIDS", "lecun", "mirrored_lecun", "pyramidal"]


def __dir__() -> list[str]:
    """Return the public names, without the modules that this one imports."""
    return __all__


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
        TypeError: a key that is none, such as 42, or a dtype that is not floating.

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
        TypeError: a key that is none, such as 42, or a dtype that is not floating.

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


PYRAMIDS = ("identity", "gaussian", "lecun")


def pyramidal(
    key: Key[Array, ""],
    *,
    inputs: int,
    widths: Sequence[int],
    variant: str = "identity",
    scale: float = 1.0,
    variance: float = 0.0,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Draw the weights of a deep net for the theorem of pyramidal nets: W_1 ~ N(0, 1/d), and above it by variant.

    "identity": W_2 ~ N(0, ν), and W_l = c·[I; 0] for l ≥ 3, so that λ_l = λ̄_l = c.
    "gaussian": W_2 ~ N(0, ν), and W_l ~ N(0, (200c)²/n_{l−1}) for l ≥ 3. Then λ_l² ≥ cλ̄_l with high probability
    where √n_{l−1} ≥ 1.11 √n_l; the 1.01 of the paper's text is too small for that.
    "lecun": W_l ~ N(0, 1/n_{l−1}) for all l (section 3.2); c and ν must be left as they are.

    Whether the theorem holds for a draw and data says ``nj.certificates.pyramidal``; ``nj.solvers.pyramidal_start``
    searches c and ν.

    Args:
        key: a JAX random key.
        inputs: d.
        widths: n_1 … n_L, at least two.
        variant: "identity", "gaussian" or "lecun".
        scale: c > 0.
        variance: ν ≥ 0; at 0 the output is exactly 0.
        dtype: of the weights.

    Returns:
        ``{"w1": (d, n_1), …, "wL": (n_{L−1}, n_L)}``.

    Raises:
        ValueError: an unknown variant, fewer than two widths, a size below 1, c ≤ 0, ν < 0, c or ν with "lecun",
            or float64 while x64 is off.

    Example:
        >>> params = pyramidal(jax.random.key(0), inputs=5, widths=(40, 3, 2), scale=7.0)
        >>> print(params["w3"])
        [[7. 0.]
         [0. 7.]
         [0. 0.]]

    Reference:
        "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", sections 3.1, 3.2.
    """
    _checks.choice("variant", variant, PYRAMIDS)
    _checks.key("key", key)
    _check_widths(inputs, widths)
    _checks.positive("scale", scale)
    if not 0 <= variance < jnp.inf:
        raise ValueError(f"variance is {variance}; expected a finite number ≥ 0")
    if variant == "lecun" and (scale, variance) != (1.0, 0.0):
        raise ValueError(
            f"scale is {scale} and variance {variance}; the variant 'lecun' has neither: leave them out"
        )
    dtype = _checks.floating_dtype(dtype)
    params = {}
    for layer, (rows, columns) in enumerate(itertools.pairwise((inputs, *widths)), start=1):
        if layer > 2 and variant == "identity":
            params[f"w{layer}"] = jnp.asarray(scale * np.eye(rows, columns), dtype)
            continue
        normal = jax.random.normal(jax.random.fold_in(key, layer), (rows, columns), dtype)
        if layer == 1 or variant == "lecun":
            params[f"w{layer}"] = normal / jnp.sqrt(rows).astype(dtype)
        elif layer == 2:
            params["w2"] = normal * jnp.sqrt(variance).astype(dtype)
        else:
            params[f"w{layer}"] = normal * (200 * scale / jnp.sqrt(rows)).astype(dtype)
    return params


def _check_widths(inputs: int, widths: Sequence[int]) -> None:
    _checks.count("inputs", inputs)
    if len(widths) < 2:
        raise ValueError(f"widths are {tuple(widths)}; expected n_1 … n_L, at least two")
    for layer, width in enumerate(widths, start=1):
        _checks.count(f"width n_{layer}", width)


def _normal_weights(
    key: Key[Array, ""], inputs: int, hidden: int, fan_in: int, outputs: int, dtype: DTypeLike
) -> dict[str, Float[Array, "_ _"]]:
    _checks.count("inputs", inputs)
    _checks.count("outputs", outputs)
    _checks.key("key", key)
    dtype = _checks.floating_dtype(dtype)
    key_w, key_v = jax.random.split(key)
    return {
        "w": jax.random.normal(key_w, (inputs, hidden), dtype) / jnp.sqrt(inputs).astype(dtype),
        "v": jax.random.normal(key_v, (hidden, outputs), dtype) / jnp.sqrt(fan_in).astype(dtype),
    }
