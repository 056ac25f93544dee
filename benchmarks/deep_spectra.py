"""σ_min of a deep net's Jacobian, certified, against what a user would write: the dense Jacobian, QR and SVD.

Command:  python -m benchmarks.deep_spectra
Expected: the operator is at least 8 times as fast as the dense Jacobian by vmap(grad) with QR and SVD, at least 3 times
          as fast as forming the Gram matrix from it, and takes no array of n × p.
Cost:     two minutes on two free cores.
Writes:   benchmarks/results/deep_spectra.json
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import linalg

import narrow_jax as nj
from benchmarks import _timing

SAMPLES, INPUTS, WIDTHS = 2000, 100, (60, 60, 1)
Params = dict[str, np.ndarray]


def problem(seed: int = 0) -> tuple[Params, np.ndarray]:
    """Return LeCun weights and Gaussian data in float64."""
    rng = np.random.default_rng(seed)
    sizes = (INPUTS, *WIDTHS)
    params = {
        f"w{layer + 1}": rng.standard_normal((sizes[layer], sizes[layer + 1])) / np.sqrt(sizes[layer])
        for layer in range(len(WIDTHS))
    }
    return params, rng.standard_normal((SAMPLES, INPUTS))


@jax.jit
def dense_jacobian(params: Params, x: jax.Array) -> jax.Array:
    """Return the n × p matrix by vmap of grad."""
    theta, back = ravel_pytree(params)
    return jax.vmap(
        jax.grad(lambda theta, x: nj.models.mlp_apply(back(theta), x[None], "tanh")[0, 0]), (None, 0)
    )(theta, x)


def by_svd(params: Params, x: np.ndarray) -> float:
    """Return σ_min from the dense Jacobian by QR of its transpose and the SVD of R."""
    j = np.asarray(dense_jacobian(params, x))
    r = linalg.qr(j.T, mode="r", overwrite_a=True)[0][: len(x)]
    return float(linalg.svdvals(r, overwrite_a=True)[-1])


def by_gram(params: Params, x: np.ndarray) -> jax.Array:
    """Return the Gram matrix of the dense Jacobian."""
    j = dense_jacobian(params, x)
    return jax.block_until_ready(j @ j.T)


def main() -> None:
    """Measure, print and write."""
    params, x = problem()
    rows, columns = len(x), sum(w.size for w in params.values())
    before = _timing.peak_gb()
    found = nj.sigma_min(nj.jacobian.mlp(params, x))
    taken = _timing.peak_gb() - before
    with jax.enable_x64(True):
        exact = by_svd(params, x)
        seconds = _timing.best_seconds(
            {
                "operator, certified": lambda: nj.sigma_min(nj.jacobian.mlp(params, x)),
                "dense, QR and SVD": lambda: by_svd(params, x),
                "dense, Gram matrix": lambda: by_gram(params, x),
            },
            repeats=3,
        )
    first = next(iter(seconds.values()))
    records: list[dict[str, Any]] = [
        {"what": what, "seconds": round(best, 3), "times_the_operator": round(best / first, 2)}
        for what, best in seconds.items()
    ]
    records[0] |= {
        "status": found.status,
        "value": found.value,
        "width": found.upper - found.lower,
        "dense_value": exact,
        "peak_gb_with_compilation": round(taken, 3),
        "gb_of_n_p": 8 * rows * columns / 1e9,
    }
    _timing.table(records, ("what", "seconds", "times_the_operator"))
    print(f"σ_min = {found.value!r} ({found.status}, width {found.upper - found.lower:.2g}), dense {exact!r}")
    print("written:", _timing.write("deep_spectra", "python -m benchmarks.deep_spectra", records, "scipy"))


if __name__ == "__main__":
    main()
