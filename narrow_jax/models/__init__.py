"""Networks: pure functions over params, and the Flax modules that wrap them."""

from narrow_jax.models.mlp import MLP, mlp_apply, mlp_layers
from narrow_jax.models.one_hidden import PairwiseNet, StandardNet, pairwise_apply, standard_apply

__all__ = ["MLP", "PairwiseNet", "StandardNet", "mlp_apply", "mlp_layers", "pairwise_apply", "standard_apply"]
