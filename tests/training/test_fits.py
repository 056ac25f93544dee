"""Nothing that does not fit wraps or overflows on its way into a run: 64-bit data while x64 is off."""

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj
from narrow_jax.data import arrays

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
REAL = np.ones((6, 1), np.float32)
PARAMS = nj.initializers.lecun(jax.random.key(0), inputs=3, width=4, outputs=3)
TOO_LARGE = {
    "int64": (2**31, "int32"),
    "uint64": (2**32, "uint32"),
    "float64": (1e300, "float32"),
    "complex128": (1e300, "complex64"),
}


def fit(**options):
    return nj.fit(nj.models.standard_apply, PARAMS, optax.sgd(0.1), steps=1, callbacks=[], **options)


def own_loss(outputs, y):
    return (outputs**2).mean()


@pytest.mark.parametrize("dtype", TOO_LARGE)
def test_what_does_not_fit_is_named(dtype):
    value, into = TOO_LARGE[dtype]
    array = np.array([[1, 2], [value, 3]], dtype)
    with pytest.raises(
        ValueError, match=rf"y is {dtype} and 1 of its entries do not fit into {into}.*\(1, 0\)"
    ):
        arrays.narrowed("y", array)
    arrays.narrowed("y", array[:1])
    with jax.enable_x64(True):
        arrays.narrowed("y", array)


@pytest.mark.parametrize(
    "value", [-(2**31), 2**31 - 1, np.iinfo(np.int32).max], ids=["least", "greatest", "greatest by name"]
)
def test_the_ends_of_the_range_fit(value):
    arrays.narrowed("y", np.array([value]))


ROWS = {
    "labels of the data": {"data": (X, LABELS + 2**31), "loss": own_loss},
    "labels of the evaluation": {"data": (X, LABELS), "loss": own_loss, "evaluation": (X, LABELS - 2**40)},
    "labels of a stream, outside its sample": {
        "data": nj.data.Stream(X, np.where(np.arange(6) == 5, 2**33, LABELS), sample=2),
        "loss": own_loss,
        "batch_size": 2,
        "key": jax.random.key(0),
    },
    "targets of a loss of one's own": {"data": (X, np.full((6, 1), 1e300)), "loss": own_loss},
    "tokens": {"data": (np.full((6, 3), 2**35), REAL), "loss": own_loss},
}


@pytest.mark.parametrize("options", ROWS.values(), ids=ROWS.keys())
def test_fit_refuses_what_would_wrap_or_overflow(options):
    with pytest.raises(ValueError, match=r"fit into (int32|float32)"):
        fit(**options)


def test_sweep_refuses_seeds_that_would_wrap():
    def setup(seed):
        return nj.initializers.lecun(jax.random.key(seed), inputs=3, width=4), optax.sgd(0.1)

    with pytest.raises(ValueError, match=r"grid axis 'seed' is int64"):
        nj.sweep(nj.models.standard_apply, setup, (X, REAL), grid={"seed": [0, 2**31 + 5]}, steps=1)
