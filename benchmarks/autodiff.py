"""σ_min of any function's Jacobian by ``jacobian.autodiff``, against what a user would write by hand.

Command:  python -m benchmarks.autodiff
Expected: without a proof not more than 1.3 times vmap(grad) with the SVD of NumPy as it is called by default, vectors
          included; with one, some passes over the matrix more.
Cost:     half a minute on two free cores.
Writes:   benchmarks/results/autodiff.json
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import narrow_jax as nj
from benchmarks import _timing

SAMPLES, WIDTHS = 10, (784, 512, 128, 64, 1)
Params = list[np.ndarray]


def net(params: Params, x: jax.Array) -> jax.Array:
    """Return the outputs of a tanh net, (n, 1)."""
    *hidden, last = params
    for w in hidden:
        x = jnp.tanh(x @ w)
    return x @ last


@jax.jit
def by_hand(params: Params, x: jax.Array) -> jax.Array:
    """Return the n × p matrix by vmap of grad."""
    theta, back = ravel_pytree(params)
    return jax.vmap(jax.grad(lambda theta, x: net(back(theta), x[None])[0, 0]), (None, 0))(theta, x)


def main() -> None:
    """Measure, print and write."""
    rng = np.random.default_rng(0)
    params = [rng.normal(size=pair) / np.sqrt(pair[0]) for pair in itertools.pairwise(WIDTHS)]
    x = rng.normal(size=(SAMPLES, WIDTHS[0]))
    with jax.enable_x64(True):
        seconds = _timing.best_seconds(
            {
                "vmap(grad), SVD with vectors": lambda: np.linalg.svd(
                    by_hand(params, x), full_matrices=False
                ),
                "vmap(grad), singular values": lambda: np.linalg.svd(by_hand(params, x), compute_uv=False),
                "autodiff, certified": lambda: nj.sigma_min(nj.jacobian.autodiff(net, params, x)),
                "autodiff, not certified": lambda: nj.sigma_min(
                    nj.jacobian.autodiff(net, params, x), certify=False
                ),
            },
            repeats=5,
        )
        exact = float(np.linalg.svd(by_hand(params, x), compute_uv=False)[-1])
    found = nj.sigma_min(nj.jacobian.autodiff(net, params, x))
    first = next(iter(seconds.values()))
    records: list[dict[str, Any]] = [
        {"what": what, "seconds": round(best, 3), "times_by_hand": round(best / first, 2)}
        for what, best in seconds.items()
    ]
    records[2] |= {"status": found.status, "relative_error": abs(found.value / exact - 1)}
    _timing.table(records, ("what", "seconds", "times_by_hand"))
    print(
        f"{sum(w.size for w in params):,} weights, σ_min = {found.value!r} ({found.status}), by hand {exact!r}"
    )
    print("written:", _timing.write("autodiff", "python -m benchmarks.autodiff", records))


if __name__ == "__main__":
    main()
