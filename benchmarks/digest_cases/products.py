"""Jacobian operators: their shapes, products and bounds, of each kind and form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks.digest_cases.given import case, enter_all, net, numbers

j = nj.jacobian
SQUARE = nj.activations.Activation("square", jnp.square, lambda z: 2 * z, float("inf"), float("-inf"), 2.0)


def mlp() -> dict[str, np.ndarray]:
    """Return weights of a net with two hidden layers."""
    return {"w1": numbers(1, 4, 5), "w2": numbers(2, 5, 3), "w3": numbers(3, 3, 2)}


def tanh_mlp(params: Any, x: Any) -> jax.Array:
    """Apply the net, all layers tanh."""
    return nj.models.mlp_apply(params, x, "tanh")


def equal() -> np.ndarray:
    """Return samples of which two are equal."""
    x = numbers(0, 5, 4)
    x[3] = x[1]
    return x


def low_rank() -> np.ndarray:
    """Return a matrix of rank 3."""
    return numbers(0, 5, 3) @ numbers(1, 3, 9)


def hilbert(rows: int) -> np.ndarray:
    """Return a matrix of a large condition number."""
    return 1 / (np.arange(rows)[:, None] + np.arange(rows + 2) + 1.0)


OPERATORS: dict[str, Callable[[], Any]] = {
    "pairwise": lambda: j.pairwise(net(), numbers(0, 5, 4)),
    "pairwise, more outputs": lambda: j.pairwise(net(8, outputs=3), numbers(0, 4, 4), "softplus"),
    "pairwise, one column a row": lambda: j.pairwise(net(), numbers(0, 24, 4)),
    "pairwise, more rows than columns": lambda: j.pairwise(net(2), numbers(0, 11, 4)),
    "pairwise, equal samples": lambda: j.pairwise(net(), equal()),
    "pairwise, relu": lambda: j.pairwise(net(), numbers(0, 5, 4), "relu"),
    "pairwise, nothing stated": lambda: j.pairwise(net(), numbers(0, 5, 4), SQUARE),
    "pairwise, tiny": lambda: j.pairwise({k: 1e-12 * v for k, v in net().items()}, 1e-9 * numbers(0, 5, 4)),
    "standard": lambda: j.standard(net(pairs=False), numbers(0, 5, 4)),
    "standard, more outputs": lambda: j.standard(net(5, outputs=2, pairs=False), numbers(0, 4, 4), "gelu"),
    "autodiff": lambda: j.autodiff(tanh_mlp, mlp(), numbers(0, 5, 4)),
    "autodiff, forward": lambda: j.autodiff(tanh_mlp, mlp(), numbers(0, 5, 4), mode="forward"),
    "autodiff, chosen": lambda: j.autodiff(tanh_mlp, mlp(), numbers(0, 5, 4), wrt=("w1", "w3")),
    "autodiff, recomputed": lambda: j.autodiff(tanh_mlp, mlp(), numbers(0, 5, 4), memory_budget=3000),
    "autodiff, float32": lambda: j.autodiff(
        lambda p, x: jnp.tanh(x.astype(jnp.float32) @ p["w"].astype(jnp.float32)),
        {"w": numbers(0, 4, 2)},
        numbers(0, 3, 4),
    ),
    "explicit": lambda: j.explicit(numbers(0, 5, 9)),
    "explicit, square": lambda: j.explicit(numbers(0, 6, 6)),
    "explicit, tall": lambda: j.explicit(numbers(0, 8, 5)),
    "explicit, low rank": lambda: j.explicit(low_rank()),
    "explicit, zero": lambda: j.explicit(np.zeros((3, 4))),
    "explicit, ill-conditioned": lambda: j.explicit(hilbert(7)),
    "explicit, beyond proof": lambda: j.explicit(hilbert(11)),
    "explicit, huge": lambda: j.explicit(np.random.default_rng(0).normal(size=(4, 6)) * 1e300),
    "explicit, denormal": lambda: j.explicit(np.random.default_rng(0).normal(size=(4, 6)) * 1e-310),
    "explicit, one row": lambda: j.explicit(numbers(0, 1, 4)),
}


def products(make: Callable[[], Any]) -> Any:
    """Return all products of an operator, computed as they are and with the operator traced."""
    J = make()
    rows, columns = J.shape
    u, p = numbers(rows, rows), numbers(columns, columns)

    def all_of(J: Any) -> Any:
        return {"mv": J.mv(p), "rmv": J.rmv(u), "gram": J.gram(), "dense": J.dense()}

    bounds = [J.perturbation(), J.gram_error()]
    blocks = [block.shape for block in J.column_blocks()]
    return all_of(J) | {"shape": J.shape, "encloses": J.encloses, "bounds": bounds, "blocks": blocks}


COMPILED = ("pairwise", "standard, more outputs", "autodiff", "explicit")
"""Those whose products are also taken of a traced operator, which is slow to compile."""


def traced(make: Callable[[], Any]) -> Any:
    """Return products of a traced operator, and their slopes."""
    J = make()
    u, p = numbers(1, J.shape[0]), numbers(2, J.shape[1])
    found = jax.jit(lambda J: (J.mv(p), J.rmv(u), J.gram(), J.dense()))(J)
    leaves, structure = jax.tree.flatten(J)
    leaves = [jnp.asarray(leaf) for leaf in leaves]

    def form(leaves: Any) -> jax.Array:
        return jnp.vdot(u, jax.tree.unflatten(structure, leaves).mv(p))

    return {"products": found, "slopes": jax.grad(form)(leaves)}


enter_all(
    "jacobian/traced/",
    {name: partial(traced, OPERATORS[name]) for name in COMPILED},
    x64=("pairwise", "explicit"),
)


@case("jacobian/widths")
def widths() -> Any:
    """Admissible widths, and the warning where one is too small."""
    x = numbers(0, 30, 4)
    j.check_width(x, 6)
    j.check_width(x, 16)
    return [j.admissible_width(x), j.admissible_width(x, 3), j.admissible_width(low_rank(), 2)]
