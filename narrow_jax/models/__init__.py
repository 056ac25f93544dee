"""Networks: pure functions over params, and the Flax modules that wrap them."""

from narrow_jax.models.one_hidden import PairwiseNet, StandardNet, pairwise_apply, standard_apply

__all__ = ["PairwiseNet", "StandardNet", "pairwise_apply", "standard_apply"]
