"""A small problem of random labels, its Jacobian, and its residuals in 50 digits."""

import jax
import mpmath
import numpy as np

import narrow_jax as nj

KEY = jax.random.key(0)
N, D, WIDTH = 24, 5, 12


def gaussian(n=N, d=D, k=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(n, k))


def start(width=WIDTH):
    return jax.tree.map(np.asarray, nj.initializers.mirrored_lecun(KEY, inputs=D, width=width))


def jacobian(w, v, x):
    """∂f/∂w of the pairwise tanh net, rows (i, c), columns (a, j)."""
    d = (1 - np.tanh(x @ w) ** 2)[:, None, :] * np.concatenate([v, -v]).T
    return (x[:, None, :, None] * d[:, :, None, :]).reshape(len(x) * v.shape[1], -1)


def exact_residual(w, v, x, y):
    """y − f in mpmath, rows (i, c)."""
    h, k = v.shape
    residual = []
    for row, labels in zip(x.tolist(), y.tolist(), strict=True):
        s = [mpmath.tanh(mpmath.fdot(row, w[:, j])) for j in range(2 * h)]
        pairs = [plus - minus for plus, minus in zip(s[:h], s[h:], strict=True)]
        residual += [labels[c] - mpmath.fdot(v[:, c].tolist(), pairs) for c in range(k)]
    return residual


def exact_loss(params, x, y):
    """½‖y − f‖² in 50-digit arithmetic."""
    with mpmath.workdps(50):
        return mpmath.norm(exact_residual(params["w"], params["v"], x, y)) ** 2 / 2
