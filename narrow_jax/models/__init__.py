"""Networks: pure functions over params, and the Flax modules that wrap them."""

from narrow_jax.models.mlp import MLP, Activations, mlp_activations, mlp_apply, mlp_layers
from narrow_jax.models.one_hidden import PairwiseNet, StandardNet, pairwise_apply, standard_apply

__all__ = [
    "MLP",
    "Activations",
    "PairwiseNet",
    "StandardNet",
    "mlp_activations",
    "mlp_apply",
    "mlp_layers",
    "pairwise_apply",
    "standard_apply",
]
