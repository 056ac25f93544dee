"""What an object is, said in one sentence before any of its attributes is read."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse
from flax import nnx
from jax.experimental import sparse

import narrow_jax as nj
from narrow_jax import _checks


class Frame:
    """A table as pandas has it: dtypes of its own, and a conversion."""

    __module__ = "pandas.core.frame"

    def __init__(self, values, dtype=None):
        self.values = np.asarray(values, dtype)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class Extension(Frame):
    """A column of nullable integers: its dtype is none of NumPy's."""

    dtype = "Int64"
    shape = (2,)


class Tensor:
    """An array of another framework, with a dtype of its own."""

    dtype = object()
    shape = (2,)

    def __array__(self, dtype=None, copy=None):
        return np.ones(self.shape)


WRONG = {
    "none": (None, "x is None; expected an array of numbers"),
    "list": ([[1.0]], r"x is a list; expected an array of numbers: pass np.asarray\(x, np.float32\)"),
    "number": (0.5, r"x is the number 0.5; .*pass np.asarray\(0.5, np.float32\)"),
    "text": ("abc", r"x is a str \('abc'\); .*encode text as numbers first"),
    "two inputs": (
        (np.ones(2), np.ones(2)),
        "x is a tuple of 2; .*several inputs are not supported; join them",
    ),
    "inputs by name": ({"a": np.ones(2)}, "x is a dict of 1; .*several inputs are not supported; join them"),
    "strings": (np.array(["a", "b"]), "x is an array of dtype <U1; .*encode categories, text and dates"),
    "objects": (np.array([1, None]), "x is an array of dtype object; .*encode categories"),
    "dates": (np.array(["2020"], "M8[D]"), "x is an array of dtype datetime64.*encode categories"),
    "frame": (Frame([[1.0]]), r"x is a Frame of a data frame library; .*x.to_numpy\(dtype=np.float32\)"),
    "nullable": (Extension([1, 2]), r"x is a Extension of a data frame library; .*missing values filled in"),
    "tensor": (Tensor(), r"x is a Tensor; .*pass np.asarray\(x\)"),
    "sparse": (scipy.sparse.eye(3, format="csr"), r"x is a sparse csr_matrix; .*x.toarray\(\)"),
    "sparse of jax": (
        sparse.BCOO.fromdense(np.ones((2, 2), np.float32)),
        r"x is a sparse BCOO; .*x.todense\(\)",
    ),
    "masked": (np.ma.array([1.0, 2.0], mask=[0, 1]), "x is an array with masked entries; .*fill them in"),
    "key": (jax.random.key(0), "x is a random key; .*draw from it first"),
    "keys": (jax.random.split(jax.random.key(0)), "x is a random key; .*draw from it first"),
    "transformation": (optax.sgd(0.1), "x is a gradient transformation; .*where tx is asked for"),
    "linen": (nn.Dense(3), "x is a Flax module; .*pass module.apply"),
    "nnx": (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), r"x is an nnx.Module; .*nnx.split\(model\)"),
    "function": (jnp.tanh, "x is the callable tanh; .*pass what it returns"),
    "dtype": (np.float32, "x is the callable float32; .*pass what it returns"),
    "generator": ((i for i in range(3)), "x is a generator; .*pass a NumPy or JAX array"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_array_is_told_by_its_name(kind):
    value, message = WRONG[kind]
    with pytest.raises(TypeError, match=message):
        _checks.array("x", value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "uint32", "bool", "complex64"])
def test_arrays_of_numbers_pass_as_they_are(dtype):
    for value in (
        jnp.ones(3, dtype),
        np.ones((), dtype),
        np.ones(3, dtype)[0],
        jax.ShapeDtypeStruct((2,), dtype),
    ):
        assert _checks.array("x", value) is value
    jax.eval_shape(lambda x: _checks.array("x", x), jnp.ones(3, dtype))


def test_masks_that_hide_nothing_pass():
    assert _checks.array("x", np.ma.array([1.0, 2.0])).size == 2


@pytest.mark.parametrize("value", [[[1.0, 2.0]], ((1, 2),), 3.0, Frame([[1.0]]), [jnp.ones(2), jnp.ones(2)]])
def test_what_converts_to_numbers_is_converted_where_it_was(value):
    np.testing.assert_array_equal(_checks.as_array("x", value), np.asarray(value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1.0], [2.0, 3.0]], "x is a list; .*inhomogeneous"),
        ([["a"]], "x is a list; expected an array of numbers"),
        (Frame(["a", "b"]), "x is a Frame of a data frame library; .*categories and strings encoded"),
        (Extension([1, None]), "x is a Extension of a data frame library"),
        ({"a": 1}, "x is a dict of 1; .*several inputs"),
        ("abc", "x is a str"),
        (None, "x is None"),
    ],
)
def test_what_converts_to_no_numbers_is_told_by_its_name(value, message):
    with pytest.raises(TypeError, match=message):
        _checks.as_array("x", value)


def test_keys_of_both_styles_pass():
    for key in (
        jax.random.key(0),
        jax.random.PRNGKey(0),
        np.array([0, 1], np.uint32),
        jax.random.key(0, impl="rbg"),
    ):
        assert _checks.key("key", key) is key
    jax.vmap(lambda key: jax.random.normal(_checks.key("key", key)))(jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (42, r"key is 42; expected a random key: pass jax.random.key\(42\)"),
        (np.int64(3), r"key is 3; expected a random key: pass jax.random.key\(3\)"),
        (None, "key is NoneType None; expected a random key"),
        (True, "key is bool True; expected a random key"),
        (0.5, "key is float 0.5; expected a random key"),
        (np.ones(3), r"key is ndarray array\(.*; expected a random key"),
        (
            jax.random.split(jax.random.key(0), 3),
            r"key has shape \(3,\); expected one random key: pass key\[0\]",
        ),
    ],
)
def test_what_is_no_key_is_told(value, message):
    with pytest.raises(TypeError, match=message):
        _checks.key("key", value)


PARAMS = {"w": np.ones((2, 4), np.float32), "v": np.ones((2, 1), np.float32)}
STANDARD = {**PARAMS, "v": np.ones((4, 1), np.float32)}
LAYERS = {"w1": np.ones((2, 3), np.float32), "w2": np.ones((3, 1), np.float32)}
IMAGES = np.ones((2, 4, 4, 1), np.float32)
TAKES_X = {
    "pairwise_apply": lambda x: nj.models.pairwise_apply(PARAMS, x),
    "standard_apply": lambda x: nj.models.standard_apply(STANDARD, x),
    "mlp_apply": lambda x: nj.models.mlp_apply(LAYERS, x),
    "pairwise": lambda x: nj.jacobian.pairwise(PARAMS, x),
    "standard": lambda x: nj.jacobian.standard(STANDARD, x),
    "autodiff": lambda x: nj.jacobian.autodiff(nj.models.standard_apply, STANDARD, x),
    "explicit": nj.jacobian.explicit,
    "admissible_width": nj.jacobian.admissible_width,
    "assumptions": lambda x: nj.certificates.assumptions(x, [1.0, 2.0], 2),
    "memorization": lambda x: nj.certificates.memorization(PARAMS, PARAMS, x, [1.0, 2.0]),
    "nice_region": lambda x: nj.certificates.nice_region(PARAMS, x),
    "kkt": lambda x: nj.certificates.kkt(PARAMS, PARAMS, x, [1.0, 2.0], radius=1.0),
    "natural_residual": lambda x: nj.certificates.natural_residual(PARAMS, PARAMS, x, [1.0, 2.0], radius=1.0),
    "memorize": lambda x: nj.memorize(jax.random.key(0), x, [1.0, 2.0], width=4, radius=1.0, certify=False),
    "solve_kkt": lambda x: nj.solvers.solve_kkt(jax.random.key(0), x, [1.0, 2.0], 4, 1.0, steps=1),
    "random_crop": lambda x: nj.data.augment.random_crop(jax.random.key(0), x),
    "mirror_channels": nj.models.mirror_channels,
    "pairwise_head": lambda x: nj.models.pairwise_head(PARAMS["v"], x),
}
CONVERTS = {"pairwise", "standard", "autodiff", "explicit", "admissible_width"}
CONVERTS |= {"assumptions", "memorization", "nice_region", "kkt", "natural_residual", "memorize", "solve_kkt"}
TAKES_A_KEY = {
    "lecun": lambda key: nj.initializers.lecun(key, inputs=2, width=4),
    "mirrored_lecun": lambda key: nj.initializers.mirrored_lecun(key, inputs=2, width=4),
    "pyramidal": lambda key: nj.initializers.pyramidal(key, inputs=2, widths=(4, 1)),
    "random_crop": lambda key: nj.data.augment.random_crop(key, IMAGES),
    "horizontal_flip": lambda key: nj.data.augment.horizontal_flip(key, IMAGES),
}


KINDS = ("none", "text", "two inputs", "inputs by name", "strings", "key", "linen", "function", "masked")


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (f, kind) for f in TAKES_X for kind in KINDS if kind != "two inputs" or f not in CONVERTS
    ],  # rows, for these
)
def test_public_functions_say_what_x_is(function, kind, unchecked):
    value, message = WRONG[kind]
    with pytest.raises(TypeError, match=message.replace("x is", r"\w+ is", 1)):
        TAKES_X[function](value)


@pytest.mark.parametrize("function", sorted(CONVERTS))
def test_lists_of_numbers_are_taken_where_they_were(function):
    TAKES_X[function]([[1.0, 2.0], [3.0, 5.0]])


@pytest.mark.parametrize("function", TAKES_A_KEY)
def test_public_functions_say_how_to_make_a_key(function, unchecked):
    with pytest.raises(TypeError, match=r"key is 42; expected a random key: pass jax.random.key\(42\)"):
        TAKES_A_KEY[function](42)
    TAKES_A_KEY[function](jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    "apply_fn", [nj.models.pairwise_apply, nj.models.standard_apply, nj.models.mlp_apply]
)
def test_params_that_are_no_dict(apply_fn, unchecked):
    with pytest.raises((TypeError, ValueError), match=r"params is .*; expected a dict"):
        apply_fn([np.ones((2, 2))], np.ones((2, 2)))
