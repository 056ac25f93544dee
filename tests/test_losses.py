"""Losses and accuracies against NumPy, and the message of every bad target."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import narrow_jax as nj
from narrow_jax import losses

# float64: sums of 15 squares, exponentials and logarithms of numbers of order 1; measured 3e-16
ROUNDING = 1e-14

RNG = np.random.default_rng(0)
OUTPUTS, REAL, LABELS = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3)), np.array([2, 0, 1, 1, 2])


def cross_entropy_by_hand(outputs, labels):
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    return -np.mean([np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)])


EXPECTED = {
    "squared": (REAL, 0.5 * sum((a - b) ** 2 for a, b in zip(REAL.flat, OUTPUTS.flat, strict=True))),
    "mean_squared": (REAL, sum((a - b) ** 2 for a, b in zip(REAL.flat, OUTPUTS.flat, strict=True)) / 15),
    "cross_entropy": (LABELS, cross_entropy_by_hand(OUTPUTS, LABELS)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_value_is_numpys(name, x64):
    y, expected = EXPECTED[name]
    value = losses.get(name)(jnp.asarray(OUTPUTS), jnp.asarray(y))
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, rel=ROUNDING)


def test_gradient_of_squared_is_the_residual(x64):
    gradient = jax.grad(losses.squared)(jnp.asarray(OUTPUTS), jnp.asarray(REAL))
    np.testing.assert_allclose(gradient, OUTPUTS - REAL, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8"])
def test_cross_entropy_takes_any_integer_labels_and_large_logits(dtype):
    value = losses.cross_entropy(jnp.array([[1e4, 0.0], [0.0, 1e4]]), jnp.array([0, 0], dtype))
    assert float(value) == pytest.approx(5e3)  # the mean of 0 and 1e4: no overflow of exp


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", EXPECTED)
def test_dtype_of_the_outputs_is_kept(name, dtype):
    y = jnp.zeros(4, jnp.int32) if name == "cross_entropy" else jnp.zeros((4, 2), dtype)
    assert jax.eval_shape(losses.get(name), jnp.zeros((4, 2), dtype), y).dtype == dtype


def test_get_returns_a_callable_as_it_is():
    assert losses.get(max) is max


def test_get_names_close_matches():
    with pytest.raises(ValueError, match=r"unknown loss 'cross_entropi': did you mean 'cross_entropy'\?"):
        losses.get("cross_entropi")


GOOD_TARGETS = [
    (losses.squared, (3, 1), np.ones((3, 1), np.float32)),
    (losses.mean_squared, (3, 2), np.ones((3, 2), np.float32)),
    (losses.cross_entropy, (3, 2), np.array([0, 1, 1])),
    (losses.cross_entropy, (3, 200), np.array([0, 199, 1], np.uint8)),
    (lambda outputs, y: jnp.sum(outputs), (3, 1), np.array(["a", "b", "c"])),  # a user's loss is the user's
]


@pytest.mark.parametrize(("loss", "shape", "y"), GOOD_TARGETS)
def test_fitting_targets_pass(loss, shape, y):
    losses.check_targets(loss, jax.ShapeDtypeStruct(shape, jnp.float32), y)


@pytest.mark.parametrize("loss", [losses.squared, losses.mean_squared])
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.ones((3, 1), np.int32), TypeError, r"y has dtype int32 and the loss is squared.*cross_entropy"),
        (np.ones((3, 1), bool), TypeError, r"y has dtype bool and the loss is squared"),
        (
            np.ones(3, np.float32),
            ValueError,
            r"y has shape \(3,\) and the model's output \(3, 1\): pass y\[:, None\]",
        ),
        (np.ones((3, 2), np.float32), ValueError, r"y has shape \(3, 2\) and the model's output \(3, 1\)$"),
        (np.ones((2, 1), np.float32), ValueError, r"y has shape \(2, 1\) and the model's output \(3, 1\)$"),
        (
            np.ones((3, 1)),
            TypeError,
            r"y is float64 and the model's output float32; nothing is cast silently: pass y.astype",
        ),
    ],
)
def test_bad_regression_targets_are_named(loss, y, error, message):
    with pytest.raises(error, match=message):
        losses.check_targets(loss, jax.ShapeDtypeStruct((3, 1), jnp.float32), y)


@pytest.mark.parametrize(
    ("shape", "y", "error", "message"),
    [
        (
            (3, 2),
            np.ones(3, np.float32),
            TypeError,
            r"y has dtype float32; cross_entropy expects integer labels",
        ),
        ((3, 1), np.zeros(3, int), ValueError, r"model's output \(3, 1\).*at least two logits"),
        ((3, 2), np.zeros((3, 1), int), ValueError, r"y has shape \(3, 1\) and the model's output \(3, 2\)"),
        ((3, 2), np.zeros(4, int), ValueError, r"y has shape \(4,\) and the model's output \(3, 2\)"),
        ((3, 2), np.array([0, 1, 2]), ValueError, r"labels go from 0 to 2; expected 0 to 1, one a logit"),
        ((3, 2), np.array([-1, 0, 1]), ValueError, r"labels go from -1 to 1; expected 0 to 1"),
    ],
)
def test_bad_labels_are_named(shape, y, error, message):
    with pytest.raises(error, match=message):
        losses.check_targets(losses.cross_entropy, jax.ShapeDtypeStruct(shape, jnp.float32), y)


ACCURACIES = {
    "labels": (np.array([2, 0, 1, 1]), [[0, 1, 3], [2, 0, 0], [9, 1, 0], [0, 1, 0]], 0.75),
    "one-hot rows": (np.float32([[0, 1], [1, 0], [0, 1]]), [[0, 1], [0, 1], [-3, -2]], 2 / 3),
    # an output of exactly 0, that of every mirrored start, is not a hit
    "signs": (np.float32([[1], [-1], [1], [-1]]), [[0.1], [-7], [0], [3]], 0.5),
}


@pytest.mark.parametrize("kind", ACCURACIES)
def test_accuracy_is_the_fraction_of_hits(kind):
    y, outputs, expected = ACCURACIES[kind]
    accuracy = losses.accuracy_for(y)
    assert accuracy is not None
    found = jax.jit(accuracy)(jnp.asarray(outputs, jnp.float32), jnp.asarray(y))
    assert float(found) == pytest.approx(expected)


def test_accuracy_of_half_precision_outputs_counts_every_sample():
    y = np.ones((1001, 1))
    accuracy = losses.accuracy_for(y)
    found = accuracy(
        jnp.asarray(np.where(np.arange(1001) < 700, 1, -1)[:, None], jnp.bfloat16),
        jnp.asarray(y, jnp.bfloat16),
    )
    assert float(found) == pytest.approx(700 / 1001, rel=1e-6)


@pytest.mark.parametrize(
    "y",
    [
        np.float32([[0.5], [1.0]]),
        np.float32([[1.0], [0.0]]),
        np.float32([[1, 1], [1, 0]]),
        np.float32([[0, 0], [1, 0]]),
        np.float32([[0.5, 0.5], [1, 0]]),
        np.float32([1, -1]),
        np.array([[0], [1]]),
    ],
    ids=["real", "zero and one", "two hot", "none hot", "soft", "a vector", "a column of labels"],
)
def test_other_targets_have_no_accuracy(y):
    assert losses.accuracy_for(y) is None


# a loss of one's own: an accuracy only where the loss says what the outputs mean

CLASSES, BINARY = np.array([0, 2, 1, 2]), np.array([0, 1, 1, 0])
ONE_HOT, SIGNS = np.eye(3, dtype=np.float32)[CLASSES], np.float32([[1], [-1], [1], [-1]])


def softmax(f, y):
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(f, y))


def zero_inflated(f, y):
    rate, none = jnp.exp(f[:, 0]), jax.nn.sigmoid(f[:, 1])
    counted = jnp.log1p(-none) - rate + y.astype(f.dtype) * f[:, 0]
    return -jnp.mean(jnp.where(y == 0, jnp.log(none + (1 - none) * jnp.exp(-rate)), counted))


def smooth(f, y):
    return jnp.mean(optax.softmax_cross_entropy(f, optax.smooth_labels(jax.nn.one_hot(y, 3), 0.1)))


def sigmoid(f, y):
    return jnp.mean(optax.sigmoid_binary_cross_entropy(f[:, 0], y.astype(f.dtype)))


def by_sign(f, y):
    """The loss of probabilities for labels of ±1."""
    return -jnp.mean(jnp.where(y > 0, jnp.log(f), jnp.log1p(-f)))


# targets, columns of the output, loss, and whether there is an accuracy
OWN = {
    "softmax": (CLASSES, 3, softmax, True),
    "smoothed": (CLASSES, 3, smooth, True),
    "probabilities": (CLASSES, 3, lambda f, y: -jnp.mean(jnp.log(f[jnp.arange(4), y])), True),
    "softmax of one-hot rows": (ONE_HOT, 3, lambda f, y: jnp.mean(optax.softmax_cross_entropy(f, y)), True),
    "energies": (CLASSES, 3, lambda f, y: softmax(-f, y), False),
    "counts under two outputs": (BINARY, 2, zero_inflated, False),
    "a label without an output": (CLASSES, 2, softmax, False),
    "sigmoid": (
        BINARY,
        1,
        lambda f, y: jnp.mean(optax.sigmoid_binary_cross_entropy(f[:, 0], y.astype(f.dtype))),
        False,
    ),
    "counts": (BINARY, 1, lambda f, y: jnp.mean(jnp.exp(f[:, 0]) - y.astype(f.dtype) * f[:, 0]), False),
    "outputs without columns": (
        BINARY,
        None,
        lambda f, y: jnp.mean(optax.sigmoid_binary_cross_entropy(f, y)),
        False,
    ),
    "logistic": (SIGNS, 1, lambda f, y: jnp.mean(jax.nn.softplus(-f * y)), True),
    "hinge": (SIGNS, 1, lambda f, y: jnp.mean(jnp.maximum(0, 1 - f * y)), True),
    "a threshold at one": (SIGNS, 1, lambda f, y: jnp.mean(jax.nn.softplus((1 - f) * y)), False),
    "probabilities of a sign": (SIGNS, 1, by_sign, False),
    "real": (SIGNS / 3, 1, lambda f, y: jnp.mean(jnp.abs(f - y)), False),
}


@pytest.mark.parametrize("name", OWN)
def test_accuracy_under_a_loss_of_ones_own(name):
    y, columns, loss, has_one = OWN[name]
    outputs = jax.ShapeDtypeStruct((4,) if columns is None else (4, columns), jnp.float32)
    assert (losses.accuracy_for(y, outputs, loss) is not None) == has_one


@pytest.mark.parametrize(
    ("y", "shape", "loss", "has_one"),
    [
        (CLASSES, (4, 3), "cross_entropy", True),
        (SIGNS, (4, 1), "squared", True),
        (ONE_HOT, (4, 3), "mean_squared", True),
        (BINARY, (4,), "cross_entropy", False),
    ],
)
def test_accuracy_under_a_stock_loss(y, shape, loss, has_one):
    outputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert (losses.accuracy_for(y, outputs, loss) is not None) == has_one


X = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "counts", "outputs without columns", "logistic"])
def test_training_records_no_other_accuracy(name):
    y, columns, loss, has_one = OWN[name]
    params = nj.initializers.lecun(jax.random.key(0), inputs=5, width=3, outputs=columns or 1)

    def apply_fn(params, x):
        outputs = nj.models.standard_apply(params, x)
        return outputs if columns else outputs[:, 0]

    run = {"steps": 1, "loss": lambda f, y: loss(f, y if columns else y.astype(f.dtype))}
    for data in ((X, y), nj.data.Stream(X, y)):
        batches = {"batch_size": 2, "key": jax.random.key(0)} if isinstance(data, nj.data.Stream) else {}
        if name != "outputs without columns" and batches:
            continue  # one kind is enough for the other way in
        with jax.numpy_rank_promotion("allow"):
            result = nj.fit(apply_fn, params, optax.sgd(0.1), data, evaluation=(X, y), **run, **batches)
        assert ("accuracy" in result.history) == ("test_accuracy" in result.history) == has_one


def test_test_targets_of_another_kind_have_no_accuracy():
    params = nj.initializers.lecun(jax.random.key(0), inputs=5, width=3)
    run = {"steps": 1, "evaluation": (X, SIGNS / 3)}
    history = nj.fit(nj.models.standard_apply, params, optax.sgd(0.1), (X, SIGNS), **run).history
    assert "accuracy" in history
    assert "test_loss" in history
    assert "test_accuracy" not in history
