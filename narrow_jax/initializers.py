"""Draws of the starting weights: ``(key, sizes) -> params``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from narrow_jax import _checks, projections
from narrow_jax._typing import Array, ArrayLike, Float, Key, Params

__all__ = ["PYRAMIDS", "lecun", "mirrored_lecun", "mirrored_mlp", "pyramidal"]


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
        ValueError: odd width, a size below 1, ζ ≤ 0, κ < 1, weights beyond the dtype, or float64 while x64 is off.
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
    w = jnp.concatenate([half["w"], half["w"]], axis=1)
    return _represented({"w": w, "v": _into_cone(half["v"], zeta, kappa)}, zeta=zeta)


def mirrored_mlp(
    key: Key[Array, ""],
    *,
    inputs: int,
    widths: Sequence[int],
    outputs: int = 1,
    scale: ArrayLike = 1.0,
    zeta: ArrayLike = 1e-3,
    kappa: ArrayLike = jnp.inf,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, dict[str, Array] | Array]:
    """Draw the weights of a deep pairwise net whose output is exactly 0 everywhere and whose v is feasible.

    The hidden layers of one half are drawn, W_l ~ c·N(0, 1/n_{l−1}), and copied. v is that of ``mirrored_lecun``:
    N(0, 1/m) with m = 2h units in the last layer, h = n_H, then projected onto the cone; positive for one output, with
    the drawn signs for several. Weights larger than LeCun's (c = 3) make the Jacobian of deep nets in few dimensions
    far better conditioned.

    Args:
        key: a JAX random key.
        inputs: d.
        widths: n_1 … n_H, at least one.
        outputs: k.
        scale: c > 0.
        zeta: ζ > 0.
        kappa: κ ≥ 1.
        dtype: of the weights.

    Returns:
        ``{"plus": {"w1": (d, n_1), …, "wH": (n_{H−1}, h)}, "minus": the same, "v": (h, k)}``.

    Raises:
        ValueError: no width (depth 0), a size below 1, c ≤ 0, ζ ≤ 0, κ < 1, weights beyond the dtype, or
            float64 while x64 is off.
        TypeError: a key that is none, such as 42, widths that are no sequence, or a dtype that is not floating.

    Example:
        >>> params = mirrored_mlp(jax.random.key(0), inputs=3, widths=(6, 4), scale=3.0)
        >>> {name: w.shape for name, w in params["plus"].items()}, params["v"].shape
        ({'w1': (3, 6), 'w2': (6, 4)}, (4, 1))
        >>> bool((params["plus"]["w2"] == params["minus"]["w2"]).all()), bool((params["v"] >= 1e-3).all())
        (True, True)

    Reference:
        "When Expressivity Meets Trainability", Algorithm 1, with hidden layers of any number.
    """
    _checks.key("key", key)
    _check_widths(inputs, widths, "n_1 … n_H of the hidden layers, at least one: a net of depth 0 has none")
    _checks.count("outputs", outputs)
    _checks.positive("scale", scale)
    dtype = _checks.floating_dtype(dtype)

    def normal(layer: int, rows: int, columns: int, deviation: ArrayLike) -> Array:
        draw = jax.random.normal(jax.random.fold_in(key, layer), (rows, columns), dtype)
        return draw * jnp.asarray(deviation, dtype)

    sizes = enumerate(itertools.pairwise((inputs, *widths)), start=1)
    half = {f"w{layer}": normal(layer, *size, scale / math.sqrt(size[0])) for layer, size in sizes}
    v = normal(0, widths[-1], outputs, 1 / math.sqrt(2 * widths[-1]))
    drawn = {"plus": half, "minus": jax.tree.map(jnp.copy, half), "v": _into_cone(v, zeta, kappa)}
    return _represented(drawn, scale=scale, zeta=zeta)


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
            weights beyond the dtype, or float64 while x64 is off.

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
    _check_widths(inputs, widths, "n_1 … n_L, at least two", minimum=2)
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
    return _represented(params, scale=scale, variance=variance)


def _represented(params: Params, **sizes: Any) -> Params:
    """Require weights that their dtype can hold; where they are traced, sizes that it can hold."""
    known = [size for size in sizes.values() if _checks.concrete(size) is not None]
    for leaf in jax.tree.leaves(params):
        drawn = _checks.concrete(leaf)
        beyond = any(float(size) > float(jnp.finfo(leaf.dtype).max) for size in known)
        if beyond or (drawn is not None and not np.isfinite(drawn.astype(np.float64)).all()):
            given = ", ".join(f"{name} is {size}" for name, size in sizes.items())
            raise ValueError(
                f"{given}: weights of that size are beyond {leaf.dtype}, which ends at "
                f"{jnp.finfo(leaf.dtype).max:.3g}; expected smaller ones, or a wider dtype"
            )
    return params


def _check_widths(inputs: int, widths: Sequence[int], expected: str, minimum: int = 1) -> None:
    _checks.count("inputs", inputs)
    if not isinstance(widths, Sequence) or isinstance(widths, str):
        raise TypeError(f"widths is {widths!r}; expected a tuple of {expected}")
    if len(widths) < minimum:
        raise ValueError(f"widths are {tuple(widths)}; expected {expected}")
    for layer, width in enumerate(widths, start=1):
        _checks.count(f"width n_{layer}", width)


def _into_cone(v: Float[Array, "h k"], zeta: ArrayLike, kappa: ArrayLike) -> Float[Array, "h k"]:
    """Return |v| for one output, the drawn signs for several, moved into the cone."""
    signs = jnp.ones_like(v) if v.shape[1] == 1 else projections.sign_pattern(v)
    return projections.ratio_cone(jnp.abs(v) * signs, zeta, kappa, signs)


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
