"""The mirrored starts that ``memorize`` tries: widths that counts admit, and the scale of the hidden weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from narrow_jax import _checks, activations, initializers, jacobian
from narrow_jax._typing import Array, Float, Key, Params
from narrow_jax.activations import Activation
from narrow_jax.jacobian import Net, vanishes
from narrow_jax.models import Activations, mlp_activations
from narrow_jax.spectra import sigma_min

CANDIDATES = 12
"""Widths tried from the smallest that counts admit."""

WEIGHT_SCALES = tuple(2.0 ** (power / 2) for power in range(-1, 9))
"""Scales of the hidden weights tried: 0.7 to 16."""

ROWS = 2000
"""Equations among which σ_min chooses the scale: the first ones of more."""


class Start(NamedTuple):
    """A mirrored start, the scale of its hidden weights, its size in words, and the next larger one."""

    center: Params
    weight_scale: float
    name: str
    wider: str


@dataclass(frozen=True)
class Draw:
    """How starts are drawn. Made by ``of``.

    Args:
        key: random key.
        width: m of a net with one hidden layer, None for the smallest.
        widths: of the layers of each half of a deep net, or how many layers there are; None for one hidden layer.
        outputs: k.
        weight_scale: of the hidden weights; None where it is searched.
        sigmas: one a layer.
        zeta, kappa: of the cone of v.
    """

    key: Key[Array, ""]
    width: int | None
    widths: Sequence[int] | int | None
    outputs: int
    weight_scale: float | None
    sigmas: tuple[Activation, ...]
    zeta: float
    kappa: float

    @staticmethod
    def of(
        key: Key[Array, ""],
        width: int | None,
        widths: Sequence[int] | int | None,
        outputs: int,
        weight_scale: float | None,
        activation: Activations,
        zeta: float,
        kappa: float,
    ) -> Draw:
        """Return the draw, what it is made of checked, but for the data."""
        if widths is not None and width is not None:
            raise ValueError(
                f"width is {width} and widths is {widths}; expected width, of a net with one hidden layer, or widths, "
                "of the layers of a deep one"
            )
        if weight_scale is not None:
            _checks.positive("weight_scale", weight_scale)
        sigmas = tuple(mlp_activations(activation, _depth(widths)))
        if widths is None:
            activations.shared(sigmas[0])
        return Draw(key, width, widths, outputs, weight_scale, sigmas, zeta, kappa)

    @property
    def vanishing(self) -> bool:
        """Return whether f(0) = 0 is known whatever the weights."""
        return vanishes(self.sigmas, paired=True)

    def starts(self, x: Float[Array, "n d"]) -> Iterator[Start]:
        """Yield the starts, for samples that are all to be learnt; x64 has to be on."""
        for widths in self._choices(np.asarray(x)):
            make = partial(self._center, widths, x.shape[1])
            scale = self.weight_scale or (1.0 if self.widths is None else self._best_scale(make, x))
            yield Start(make(scale), scale, *self._names(widths))

    def _choices(self, x: np.ndarray) -> list[tuple[int, ...]]:
        if self.widths is None:
            return _one_hidden(x, self.width, self.outputs)
        return _deep(x, self.widths, self.outputs)

    def _center(self, widths: tuple[int, ...], inputs: int, scale: float) -> Params:
        cone = {"outputs": self.outputs, "zeta": self.zeta, "kappa": self.kappa, "dtype": jnp.float64}
        if self.widths is not None:
            return initializers.mirrored_mlp(self.key, inputs=inputs, widths=widths, scale=scale, **cone)
        center = initializers.mirrored_lecun(self.key, inputs=inputs, width=2 * widths[0], **cone)
        return {**center, "w": scale * center["w"]}

    def _best_scale(self, make: partial[Params], x: Float[Array, "n d"]) -> float:
        """Return the scale with the largest σ_min of the Jacobian at the start, where that can be told from 0."""
        rows = x[: max(ROWS // self.outputs, 1)]

        def smallest(scale: float) -> float:
            J = Net.of(jax.tree.map(np.asarray, make(scale)), self.sigmas).jacobian(rows)
            s = sigma_min(J, certify=False, method="gram")
            return float(s.value) if s.status == "estimate" else 0.0

        return max(WEIGHT_SCALES, key=smallest)

    def _names(self, widths: tuple[int, ...]) -> tuple[str, str]:
        if self.widths is not None:
            return f"widths {widths}", f"widths {tuple(width + 1 for width in widths)}"
        return f"width {2 * widths[0]}", f"width {2 * widths[0] + 2}"


def _depth(widths: Sequence[int] | int | None) -> int:
    """Return the number of hidden layers."""
    if widths is None:
        return 1
    if isinstance(widths, int | np.integer):
        return _checks.count("depth", widths)
    jacobian.require_widths(widths)
    return len(widths)


def _one_hidden(x: np.ndarray, width: int | None, outputs: int) -> list[tuple[int, ...]]:
    """Return the widths of halves to try: the given one, or some from the smallest that counts admit."""
    if width is not None:
        jacobian.check_width(x, width, outputs, strict=True)
        return [(width // 2,)]
    smallest = jacobian.admissible_width(x, outputs) // 2
    return [(smallest + more,) for more in range(CANDIDATES)]


def _deep(x: np.ndarray, widths: Sequence[int] | int, outputs: int) -> list[tuple[int, ...]]:
    """Return the widths to try: the given ones, or equal ones from the smallest that counts admit."""
    if isinstance(widths, int | np.integer):
        smallest = jacobian.admissible_widths(x, widths, outputs)
        return [tuple(width + more for width in smallest) for more in range(CANDIDATES)]
    jacobian.check_widths(x, widths, outputs)
    return [tuple(widths)]
