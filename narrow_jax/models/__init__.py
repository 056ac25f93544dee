"""Networks: pure functions over params, the Flax modules that wrap them, and the regime's parts for any Flax model."""

from narrow_jax.models import precision as precision
from narrow_jax.models.keeping import files as files
from narrow_jax.models.keeping import load as load
from narrow_jax.models.keeping import save as save
from narrow_jax.models.keeping import save_outline as save_outline
from narrow_jax.models.mirroring import (
    PairwiseHead,
    is_mirrored,
    mirror,
    mirror_channels,
    mirrored,
    pairwise_head,
)
from narrow_jax.models.mlp import (
    MLP,
    Activations,
    mlp_activations,
    mlp_apply,
    mlp_layers,
    pairwise_mlp_layers,
)
from narrow_jax.models.model import Model as Model
from narrow_jax.models.nnx_modules import split as split
from narrow_jax.models.one_hidden import PairwiseNet, StandardNet, pairwise_apply, standard_apply
from narrow_jax.models.pairwise_mlp import PairwiseMLP, pairwise_mlp_apply
from narrow_jax.models.resnet import BasicBlock, ResNet, ResNet18
from narrow_jax.models.stateful import Stateful
from narrow_jax.models.two_copies import Features as Features
from narrow_jax.models.two_copies import features_of as features_of
from narrow_jax.models.two_copies import pairwise

__all__ = [
    "MLP",
    "Activations",
    "BasicBlock",
    "PairwiseHead",
    "PairwiseMLP",
    "PairwiseNet",
    "ResNet",
    "ResNet18",
    "StandardNet",
    "Stateful",
    "is_mirrored",
    "mirror",
    "mirror_channels",
    "mirrored",
    "mlp_activations",
    "mlp_apply",
    "mlp_layers",
    "pairwise",
    "pairwise_apply",
    "pairwise_head",
    "pairwise_mlp_apply",
    "pairwise_mlp_layers",
    "standard_apply",
]


def __dir__() -> list[str]:
    """Return the public names, without the modules and what they share."""
    return __all__
