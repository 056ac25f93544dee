"""A net as the theorems see it: one hidden layer or several, one net or a pair, whatever its params look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from narrow_jax import _checks, activations
from narrow_jax._typing import Float, HostArray, Params
from narrow_jax.activations import Activation
from narrow_jax.activations import check as check_activation
from narrow_jax.jacobian.deep import MLPJacobian, halves, mlp, pairwise_mlp
from narrow_jax.jacobian.one_hidden import OneHiddenJacobian, pairwise, standard
from narrow_jax.linalg import Jacobian
from narrow_jax.models import Activations, mlp_activations, mlp_layers

Half = tuple[Float[np.ndarray, "_ _"], ...]
"""W_1 … W_H in float64."""


class Net(NamedTuple):
    """f = φ(x; W)V, or for a pair (φ(x; W⁺) − φ(x; W⁻))V, with φ = σ_H(… σ_1(xW_1) … W_H).

    Fields:
        halves: (W,), or (W⁺, W⁻) of a pair, in float64.
        v: V, (h, k), in float64.
        sigmas: σ_1 … σ_H.
        params: where all this comes from.
    """

    halves: tuple[Half, ...]
    v: Float[np.ndarray, "h k"]
    sigmas: tuple[Activation, ...]
    params: Params

    @staticmethod
    def of(params: Params, activation: Activations, what: str = "params") -> Net:
        """Return the net with these params.

        Raises:
            ValueError: no dict, leaves of no net that is known, shapes that do not fit, non-finite values.
            TypeError: leaves that are not real floating numbers.
        """
        if not isinstance(params, Mapping):
            raise ValueError(
                f"{what} is {type(params).__name__}; expected a dict with the leaves of {_KINDS}"
            )
        params = plain({name: leaf for name, leaf in params.items() if name != "center"})
        if set(params) == {"plus", "minus", "v"}:
            plus, minus, v = halves(params)
            both: tuple[tuple[HostArray, ...], ...] = (plus, minus)
        elif "w" in params:
            w, v = _checks.weights(params, what)
            both = ((w,),) if v.shape[0] == w.shape[1] else tuple((w[:, part],) for part in _parts(w, v))
        elif "w1" in params:
            *hidden, v = mlp_layers(params)
            if not hidden:
                raise ValueError(f"{what} have no hidden layer, only w1; expected w1 and w2 at least")
            both = (tuple(hidden),)
        else:
            raise ValueError(f"{what} is {sorted(params)}; expected a dict with the leaves of {_KINDS}")
        sigmas = tuple(map(check_activation, mlp_activations(activation, len(both[0]))))
        if len(both) == 2 and "w" in params:
            activations.shared(sigmas[0])
        wide = tuple(tuple(np.asarray(w, float) for w in half) for half in both)
        return Net(wide, np.asarray(v, float), sigmas, params)

    @property
    def paired(self) -> bool:
        """Return whether this is a pair."""
        return len(self.halves) == 2

    @property
    def mirrored(self) -> bool:
        """Return whether both halves of a pair are equal: then f = 0."""
        return self.paired and all(map(np.array_equal, *self.halves))

    @property
    def hidden(self) -> Float[np.ndarray, " p"]:
        """Return all hidden weights, layer by layer."""
        return np.concatenate([np.ravel(w) for half in self.halves for w in half])

    @property
    def vanishing(self) -> bool:
        """Return whether f(0) = 0 is known whatever the hidden weights."""
        return vanishes(self.sigmas, self.paired)

    def jacobian(self, x: HostArray, v: Float[np.ndarray, "h k"] | None = None) -> Jacobian:
        """Return the Jacobian with respect to the hidden weights, for another V if there is one."""
        params = dict(self.params)
        params[_outer(params)] = self.v if v is None else v
        return hidden_jacobian(params, x, self.sigmas)


def plain(params: Params) -> Params:
    """Return mappings of any kind as dicts in the order of their keys, in which the columns of J stand."""
    if not isinstance(params, Mapping):
        return params
    return {name: plain(params[name]) for name in sorted(params, key=str)}


def vanishes(sigmas: Sequence[Activation], paired: bool) -> bool:
    """Return whether f(0) = 0 is known of a net or a pair: what enters V, or the last layer of both halves, is 0."""
    return all(sigma.vanishes for sigma in (sigmas[:-1] if paired else sigmas))


_KINDS = (
    "a one-hidden-layer net (w, v), a deep net (w1, …, wL) or a pair (plus and minus with w1, … each, and v)"
)


def _parts(w: HostArray, v: HostArray) -> tuple[slice, slice]:
    half = v.shape[0]
    if w.shape[1] != 2 * half:
        raise ValueError(
            f"w has shape {w.shape} and v {v.shape}; expected v of m/2 rows (pairwise net) or m rows (standard net)"
        )
    return slice(0, half), slice(half, 2 * half)


def _outer(params: Params) -> str:
    return "v" if "v" in params else f"w{len(params)}"


def hidden_jacobian(params: Params, x: HostArray, activation: Activations) -> OneHiddenJacobian | MLPJacobian:
    """Return the Jacobian of a net with respect to its hidden weights, V fixed."""
    if "w" in params:
        one = mlp_activations(activation, 1)[0]
        paired = np.shape(params["v"])[0] != np.shape(params["w"])[1]
        return pairwise(params, x, one) if paired else standard(params, x, one)
    if "v" in params:
        return pairwise_mlp(params, x, activation)
    return mlp(params, x, activation, wrt=[f"w{layer}" for layer in range(1, len(params))])
