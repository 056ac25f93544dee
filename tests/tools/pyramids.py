"""Small pyramidal nets and data for the tests, and the theorem's constants in 40-digit arithmetic."""

import functools

import jax
import mpmath
import numpy as np

from narrow_jax import activations, losses, models

GAMMA, BETA = 0.5, 1.0
SIGMA = activations.smooth_leaky_relu(GAMMA, BETA)
WIDTHS = {2: (12, 1), 3: (10, 3, 2), 5: (9, 5, 4, 2, 1), 8: (9, 6, 5, 5, 4, 3, 2, 1), 20: (9, *[2] * 18, 1)}


def sphere(rng, samples, inputs):
    """Rows of norm √d."""
    x = rng.normal(size=(samples, inputs))
    return x * np.sqrt(inputs) / np.linalg.norm(x, axis=1, keepdims=True)


def problem(widths=WIDTHS[3], samples=4, inputs=6, scale=1.0, targets=0.01, seed=0, second=0.0):
    """A start of section 3.1 and its data: float64 NumPy arrays."""
    rng = np.random.default_rng(seed)
    sizes = (inputs, *widths)
    params = {f"w{i}": scale * np.eye(sizes[i - 1], sizes[i]) for i in range(3, len(sizes))}
    params["w1"] = rng.normal(size=sizes[:2]) / np.sqrt(inputs)
    params["w2"] = second * rng.normal(size=sizes[1:3])
    x, y = sphere(rng, samples, inputs), targets * rng.normal(size=(samples, widths[-1]))
    return params, x, y


@jax.jit
def autodiff(params, x, y):
    """F_L, the gradient of Φ, and the Jacobian of F_L."""
    value = functools.partial(models.mlp_apply, x=x, activation=SIGMA)
    gradient = jax.grad(lambda p: losses.squared(value(p), y))(params)
    return value(params), gradient, jax.jacrev(value)(params)


@jax.jit
def sigma(z):
    """σ and σ'."""
    return SIGMA(z), SIGMA.derivative(z)


@functools.partial(jax.jit, static_argnames="steps")
def descend(params, x, y, step, steps):
    """Full-batch gradient descent in float64: losses and params of every step, the start first."""

    def objective(p):
        return losses.squared(models.mlp_apply(p, x, SIGMA), y)

    def one(p, _):
        loss, gradient = jax.value_and_grad(objective)(p)
        return jax.tree.map(lambda w, g: w - step * g, p, gradient), (loss, p)

    return jax.lax.scan(one, params, None, steps)[1]


def exact_sigma(z):
    """Equation (2) in closed form."""
    tau = (1 - GAMMA) / (BETA * mpmath.sqrt(2 * mpmath.pi))
    bump = tau * (mpmath.npdf(z / tau) - mpmath.npdf(0))
    return GAMMA * z + (1 - GAMMA) * (z * mpmath.ncdf(z / tau) + bump)


def exact_constants(params, x, y):
    """Equations (3) to (8) as printed, in mpmath: a dictionary."""
    mpf, prod = mpmath.mpf, mpmath.fprod
    depth = len(params)
    weights = [mpmath.matrix(np.asarray(params[f"w{i}"], float).tolist()) for i in range(1, depth + 1)]
    layers = [mpmath.matrix(x.tolist())]
    for i, w in enumerate(weights, start=1):
        layers.append(layers[-1] * w if i == depth else (layers[-1] * w).apply(exact_sigma))

    def values(matrix):
        tall = matrix if matrix.rows >= matrix.cols else matrix.T
        return sorted(mpmath.svd_r(tall, compute_uv=False))

    low = [values(w)[0] for w in weights]
    norm = [values(w)[-1] for w in weights]
    bar = [mpf(2) / 3 * (1 + n) if i < 2 else n for i, n in enumerate(norm)]
    lambda_f, x_norm = values(layers[1])[0], values(layers[0])[-1]
    x_f = mpmath.mnorm(layers[0], "f")
    root = mpmath.mnorm(layers[-1] - mpmath.matrix(y.tolist()), "f")
    gamma, beta = mpf(GAMMA), mpf(BETA)
    front = (6 / gamma**2) ** depth * x_f * root * prod(bar[2:]) / prod(low[2:]) ** 2
    largest = max(bar[0], bar[1])
    if depth > 2:
        largest = max(
            largest, 2 * bar[0] * bar[1] / min(a * b for a, b in zip(low[2:], bar[2:], strict=True))
        )
    alpha = 4 / gamma**4 * (gamma**2 / 4) ** depth * lambda_f**2 * prod(low[2:]) ** 2
    r = prod(max(1, mpf(3) / 2 * b) for b in bar)
    lead = depth * mpmath.sqrt(depth)
    q0 = lead * mpf(1.5) ** (2 * (depth - 1)) * x_f**2 * prod(bar) ** 2 / min(bar) ** 2
    q0 += lead * x_f * (1 + depth * beta * x_f * r) * r * root
    q1 = mpf(4) / 3 * mpf(1.5) ** depth * x_f / alpha * sum(prod(bar) / b for b in bar) * root
    return {
        "condition4": mpmath.log10(lambda_f**2 / (gamma**4 / 3 * front * largest)),
        "condition5": mpmath.log10(lambda_f**3 / (2 * gamma**4 / 3 * front * x_norm * bar[1])),
        "lambdas": low,
        "lambda_bars": bar,
        "lambda_f": lambda_f,
        "x_norm": x_norm,
        "x_frobenius": x_f,
        "initial_loss": root**2 / 2,
        "alpha0": alpha,
        "q0": q0,
        "q1": q1,
        "max_learning_rate": min(1 / alpha, 1 / q0),
        "r": r,
    }
