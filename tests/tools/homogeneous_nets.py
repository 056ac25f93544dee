"""Nets with positively homogeneous activations, random data and targets: tall and wide D, one output and several."""

import numpy as np

from narrow_jax.activations import leaky_relu, per_unit

NETS = {  # inputs, widths, samples, activation
    "tall": (3, (4, 3, 2), 40, "relu"),
    "tall, one output": (4, (6, 1), 60, "abs"),
    "wide": (4, (6, 5, 2), 12, "relu"),
    "narrow end": (4, (5, 1, 2), 30, leaky_relu(0.3)),
    "four layers": (3, (3, 3, 3, 1), 50, leaky_relu(-0.5)),
    "a layer each": (3, (4, 4, 1), 50, ("abs", leaky_relu(0.1))),
    "a unit each": (3, (3, 3, 1), 40, (per_unit(["relu", "abs", leaky_relu(0.2)]), "abs")),
    "many outputs": (3, (4, 3, 6), 40, "relu"),
    "fewer samples than outputs": (3, (4, 6), 4, "relu"),
}


def problem(name, seed=0):
    """Return params, samples, targets and the activation of a net."""
    inputs, widths, samples, activation = NETS[name]
    rng = np.random.default_rng((seed, sum(map(ord, name))))
    sizes = (inputs, *widths)
    params = {
        f"w{layer}": rng.normal(size=sizes[layer - 1 : layer + 1]) for layer in range(1, len(widths) + 1)
    }
    return params, rng.normal(size=(samples, inputs)), rng.normal(size=(samples, widths[-1])), activation
