"""Architectures by name and fields: what is written of a net, and the function that is made of it again."""

import functools
import json

import flax.linen as nn
import jax.numpy as jnp
import pytest

import narrow_jax as nj
from narrow_jax.models import architectures

ARCHITECTURES = {
    "pairwise": (nj.models.pairwise_apply, {"function": "pairwise_apply", "fields": {}}),
    "of a stock activation": (
        functools.partial(nj.models.standard_apply, activation=nj.activations.get("sin")),
        {"function": "standard_apply", "fields": {"activation": "sin"}},
    ),
    "of a sequence": (
        functools.partial(nj.models.mlp_apply, activation=("relu", "tanh")),
        {"function": "mlp_apply", "fields": {"activation": ["relu", "tanh"]}},
    ),
    "in bfloat16": (
        nj.precision.bfloat16(nj.models.standard_apply),
        {"bfloat16": {"function": "standard_apply", "fields": {}}},
    ),
    "activation of one's own": (
        functools.partial(
            nj.models.standard_apply, activation=nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
        ),
        {"own": "partial"},
    ),
    "function of one's own": (len, {"own": "len"}),
    "features of one's own": (nj.models.pairwise(len), {"own": "TwoCopies"}),
    "module of one's own": (nn.Dense(3).apply, {"own": "Module.apply"}),
}


@pytest.mark.parametrize(("apply_fn", "expected"), ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_architecture_by_name_and_fields(apply_fn, expected):
    found = architectures.described(apply_fn)
    assert json.loads(json.dumps(found)) == expected
    if not architectures.is_own(found):
        assert architectures.described(architectures.built(found)) == found


@pytest.mark.parametrize(
    "module",
    [
        nj.models.StandardNet(width=4, activation="sin", param_dtype=jnp.bfloat16),
        nj.models.PairwiseMLP(widths=(4, 2), outputs=3),
        nj.models.ResNet(channels=(2,), blocks=(1,), outputs=2, head="dense", norm="group"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_come_back_equal(module):
    assert architectures.built(architectures.described(module.apply)).__self__ == module
    again = architectures.built(architectures.described(nj.models.Stateful(module)))
    assert again == nj.models.Stateful(module)


def test_unknown_architecture_is_named():
    with pytest.raises(ValueError, match=r"is unknown here \('Transformer'\); expected one of mlp_apply"):
        architectures.built({"module": "Transformer", "fields": {}})
