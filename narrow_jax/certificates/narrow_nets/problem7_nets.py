"""The nets of problem (7) in its coordinates: f at the hidden weights w⁰ + sŵ.

A pair is evaluated from the gaps in ŵ: w⁰ + sŵ has lost their digits for a small ball.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax._typing import Array, Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.models import mlp_apply, standard_apply

Hidden = Params
"""Hidden weights: an array with one hidden layer, else a tree."""


@dataclass(frozen=True)
class OneHidden:
    """f = σ(xw)v."""

    activation: Activation

    @property
    def sigmas(self) -> tuple[Activation, ...]:
        """Return σ alone."""
        return (self.activation,)

    def output(self, x: Array, w0: Array, moved: Array, scale: Array, v: Array) -> Float[Array, "n k"]:
        """Return f(x)."""
        return standard_apply(self.params(w0 + scale * moved, v), x, self.activation)

    def params(self, w: HostArray, v: HostArray) -> dict[str, HostArray]:
        """Return {"w", "v"}."""
        return {"w": w, "v": v}

    def parts(self, params: Mapping[str, HostArray]) -> tuple[HostArray, HostArray]:
        """Return w and v."""
        return params["w"], params["v"]


@dataclass(frozen=True)
class OneHiddenPair(OneHidden):
    """f = (σ(xw₊) − σ(xw₋))v, w₊ and w₋ side by side."""

    def output(self, x: Array, w0: Array, moved: Array, scale: Array, v: Array) -> Float[Array, "n k"]:
        """Return f(x)."""
        (plus, minus), (plus0, minus0) = self.halves(moved), self.halves(w0)
        z = x @ (plus0 + scale * plus)
        gap = x @ ((minus0 - plus0) + scale * (minus - plus))
        return -difference(self.activation, z, gap) @ v

    def halves(self, w: Array) -> tuple[Array, Array]:
        """Return w₊ and w₋."""
        plus, minus = jnp.split(w, 2, axis=1)
        return plus, minus

    def whole(self, plus: Array, minus: Array) -> Array:
        """Return w."""
        return jnp.concatenate([plus, minus], axis=1)

    def growths(self, v: Array, step: Array) -> tuple[Array, ...]:
        """Return those of the rows of v, each of which multiplies a column of the gap."""
        return (_row_growth(v, step),)


@dataclass(frozen=True)
class Deep:
    """f = σ_H(… σ_1(xW_1) … W_H)V, the params {"w1", …, "wL"}."""

    sigmas: tuple[Activation, ...]

    def output(self, x: Array, w0: Hidden, moved: Hidden, scale: Array, v: Array) -> Float[Array, "n k"]:
        """Return f(x)."""
        w = jax.tree.map(lambda start, step: start + scale * step, w0, moved)
        return mlp_apply(self.params(w, v), x, self.sigmas)

    def params(self, w: Hidden, v: HostArray) -> Params:
        """Return {"w1", …, "wL"}."""
        return {**w, f"w{len(self.sigmas) + 1}": v}

    def parts(self, params: Mapping[str, HostArray]) -> tuple[Hidden, HostArray]:
        """Return {"w1", …, "wH"} and the last layer."""
        *hidden, last = (f"w{layer}" for layer in range(1, len(params) + 1))
        return {name: params[name] for name in hidden}, params[last]


@dataclass(frozen=True)
class DeepPair:
    """f = (φ(x; W⁺) − φ(x; W⁻))V, the params {"plus": {"w1", …, "wH"}, "minus": the same, "v"}."""

    sigmas: tuple[Activation, ...]

    def output(self, x: Array, w0: Hidden, moved: Hidden, scale: Array, v: Array) -> Float[Array, "n k"]:
        """Return f(x): z⁺ − z⁻ = a⁺(W⁺ − W⁻) + (a⁺ − a⁻)W⁻, layer by layer."""
        (plus, minus), (plus0, minus0) = self.halves(moved), self.halves(w0)
        a, gap = x, jnp.zeros_like(x)
        for layer, sigma in enumerate(self.sigmas, start=1):
            name = f"w{layer}"
            apart = (plus0[name] - minus0[name]) + scale * (plus[name] - minus[name])
            z_gap = a @ apart + gap @ (minus0[name] + scale * minus[name])
            z = a @ (plus0[name] + scale * plus[name])
            a, gap = sigma(z), -difference(sigma, z, -z_gap)
        return gap @ v

    def params(self, w: Hidden, v: HostArray) -> Params:
        """Return {"plus", "minus", "v"}."""
        return {**w, "v": v}

    def parts(self, params: Mapping[str, Params]) -> tuple[Hidden, HostArray]:
        """Return {"plus", "minus"} and V."""
        return {half: dict(params[half]) for half in ("plus", "minus")}, params["v"]

    def halves(self, w: Hidden) -> tuple[Hidden, Hidden]:
        """Return both halves."""
        return w["plus"], w["minus"]

    def whole(self, plus: Hidden, minus: Hidden) -> Hidden:
        """Return {"plus", "minus"}."""
        return {"plus": plus, "minus": minus}

    def growths(self, v: Array, step: Array) -> tuple[Array, ...]:
        """Return those of the rows of V for W_H, and that of V as a whole for the layers before."""
        last = f"w{len(self.sigmas)}"
        whole = (1 + jnp.sum(v * step) / jnp.sum(v * v))[None]
        names = sorted(f"w{layer}" for layer in range(1, len(self.sigmas) + 1))
        return tuple(_row_growth(v, step) if name == last else whole for name in names)


ConstrainedNet = OneHidden | Deep | DeepPair
"""What problem (7) asks of a net; hashable, for it is static under ``jit``."""

ConstrainedPair = OneHiddenPair | DeepPair
"""A pair, of two halves of the same structure."""


def _row_growth(v: Array, step: Array) -> Float[Array, " h"]:
    return 1 + jnp.sum(v * step, axis=1) / jnp.sum(v * v, axis=1)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)


def difference(activation: Activation, z: Array, gap: Array) -> Array:
    """Return σ(z + g) − σ(z), for small g of an analytic σ as g∫σ'(z + tg)dt: subtracted, its digits would cancel."""
    direct = activation(z + gap) - activation(z)
    if not activation.analytic:
        return direct
    nodes = zip((_NODES + 1) / 2, _WEIGHTS / 2, strict=True)
    # the derivative of fn, not the proven one: that is a long polynomial, and minutes of compilation for the Hessian
    slope = partial(jax.jvp, activation.fn)
    mean = sum(
        float(weight) * slope((z + float(node) * gap,), (jnp.ones_like(z),))[1] for node, weight in nodes
    )
    return jnp.where(jnp.abs(gap) < 0.1, gap * mean, direct)
