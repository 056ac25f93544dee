"""`fit` on images: augmentation, evaluation, bfloat16, several devices."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orders import epoch_order

import narrow_jax as nj
from narrow_jax.data import augment

SIZE, PADDING = 5, 2
KEY = jax.random.key(3)
BFLOAT16 = 2.0**-8  # half a unit in the last of 8 bits


@pytest.fixture(scope="module")
def images():
    """Images (40, 5, 5, 2) whose pixels all differ and are not 0, so that a window tells its place."""
    return np.arange(1, 40 * SIZE * SIZE * 2 + 1, dtype=np.float32).reshape(40, SIZE, SIZE, 2)


class TestAugmentations:
    def test_crop_is_a_window_of_the_padded_image(self, images):
        cropped = np.asarray(jax.jit(partial(augment.random_crop, padding=PADDING))(KEY, images))
        padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (SIZE, SIZE), axis=(1, 2))
        windows = windows.transpose(0, 1, 2, 4, 5, 3)  # (n, top, left, height, width, channels)
        assert windows.shape[1:3] == (2 * PADDING + 1,) * 2
        hits = (windows == cropped[:, None, None]).all(axis=(3, 4, 5))
        assert (hits.sum(axis=(1, 2)) == 1).all()  # each image is one of its own windows
        _, top, left = hits.nonzero()
        assert set(top) == set(left) == set(range(2 * PADDING + 1))  # every place occurs
        assert (
            len(set(zip(top.tolist(), left.tolist(), strict=True))) > 10
        )  # each image has a place of its own

    def test_flip_is_the_image_or_its_mirror(self, images):
        flipped = np.asarray(jax.jit(augment.horizontal_flip)(KEY, images))
        same = (flipped == images).all(axis=(1, 2, 3))
        mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
        assert (same ^ mirrored).all()
        assert 10 < same.sum() < 30  # 40 fair coins: outside with probability 1e-3, and the key is fixed

    @pytest.mark.parametrize("change", [augment.random_crop, augment.horizontal_flip])
    def test_another_key_another_draw_and_bytes_stay_bytes(self, images, change):
        whole = (images % 251).astype(np.uint8)
        one, same, other = (change(jax.random.key(seed), whole) for seed in (0, 0, 1))
        assert one.dtype == jnp.uint8
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()

    def test_bad_input(self, images):
        with pytest.raises(ValueError, match=r"shape \(40, 50\).*reshape them with its image_shape"):
            augment.random_crop(KEY, images.reshape(40, -1))
        with pytest.raises(ValueError, match="padding is 0"):
            augment.random_crop(KEY, images, padding=0)


def double_or_not(key, x):
    """Scale each batch by a number that tells the key."""
    return x * jax.random.uniform(key, (), x.dtype)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, x_test = (rng.normal(size=(n, 4)).astype(np.float32) for n in (12, 7))
    y, y_test = (rng.integers(3, size=n).astype(np.int32) for n in (12, 7))
    params = nj.initializers.lecun(jax.random.key(1), inputs=4, width=6, outputs=3)
    return params, (x, y), (x_test, y_test)


SGD = optax.sgd(0.1)
OPTIONS = {"loss": "cross_entropy", "batch_size": 4, "key": KEY, "every": 3}


@pytest.fixture(scope="module")
def run(problem):
    """The run that the tests look at: 5 steps, augmented, with evaluation."""
    params, data, evaluation = problem
    with jax.numpy_dtype_promotion("strict"):
        return nj.fit(
            nj.models.standard_apply,
            params,
            SGD,
            data,
            steps=5,
            augment=double_or_not,
            evaluation=evaluation,
            **OPTIONS,
        )


def test_augmented_steps_are_those_of_a_plain_loop(problem, run):
    """The key of a step is a function of the run's key and the step, and differs from step to step."""
    params, (x, y), _ = problem

    def scales(step):
        stream = jax.random.fold_in(KEY, 2**32 - 1)
        return jax.random.uniform(jax.random.fold_in(stream, step), ())

    for step in range(5):
        order = epoch_order(KEY, step // 3, 12)
        chosen = order[step % 3 * 4 :][:4]

        def loss(params, chosen=chosen, step=step):
            outputs = nj.models.standard_apply(params, x[chosen] * scales(step))
            return nj.losses.cross_entropy(outputs, y[chosen])

        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), run.params, params)
    assert len({float(scales(step)) for step in range(5)}) == 5


def test_evaluation_is_recorded_beside_training(problem, run):
    _, (x, y), (x_test, y_test) = problem
    assert run.history["step"].tolist() == [0, 3, 5]
    for prefix, rows, labels in (("", x, y), ("test_", x_test, y_test)):
        logits = np.asarray(nj.models.standard_apply(run.params, rows), float)
        log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = -log_softmax[np.arange(len(labels)), labels].mean()
        assert run.history[f"{prefix}loss"][-1] == pytest.approx(expected, rel=1e-5)
        hits = (logits.argmax(axis=1) == labels).mean()
        assert run.history[f"{prefix}accuracy"][-1] == pytest.approx(hits, rel=1e-6)


def test_sweep_takes_augmentation_and_evaluation(problem, run):
    params, data, evaluation = problem

    def setup(rate):
        return params, optax.sgd(rate)

    swept = nj.sweep(
        nj.models.standard_apply,
        setup,
        data,
        grid={"rate": [0.1, 0.2]},
        steps=3,
        augment=double_or_not,
        evaluation=evaluation,
        **OPTIONS,
    )
    assert swept.history["test_loss"].shape == (2, 2)
    np.testing.assert_allclose(swept.history["test_loss"][:, 0], run.history["test_loss"][0], rtol=1e-5)
    assert swept.history["test_loss"][0, 1] != swept.history["test_loss"][1, 1]


BAD_OPTIONS = {
    "augment without key": (
        {"augment": double_or_not, "key": None, "batch_size": None},
        ValueError,
        "pass key=",
    ),
    "augment that reshapes": (
        {"augment": lambda key, x: x[:, :2]},
        ValueError,
        r"augment makes float32\[12, 2\] of float32\[12, 4\]",
    ),
    "evaluation of another shape": (
        {"evaluation": (np.ones((3, 5), np.float32), np.zeros(3, np.int32))},
        ValueError,
        r"evaluation: x has shape \(3, 5\)",
    ),
    "evaluation not finite": (
        {"evaluation": (np.full((3, 4), np.nan, np.float32), np.zeros(3, np.int32))},
        ValueError,
        "evaluation: x has 12 non-finite",
    ),
    "evaluation rows": (
        {"evaluation": (np.ones((3, 4), np.float32), np.zeros(2, np.int32))},
        ValueError,
        "evaluation: x has 3 samples",
    ),
    "evaluation label": (
        {"evaluation": (np.ones((3, 4), np.float32), np.full(3, 3, np.int32))},
        ValueError,
        "labels go from 3 to 3; expected 0 to 2",
    ),
    "devices": (
        {"devices": jax.devices()[:1] * 3},
        ValueError,
        "batch of 4 samples does not divide over 3 devices",
    ),
    "no device": ({"devices": []}, ValueError, "does not divide over 0 devices"),
}


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(problem, options, error, message):
    params, data, _ = problem
    with pytest.raises(error, match=message):
        nj.fit(nj.models.standard_apply, params, SGD, data, steps=1, **(OPTIONS | options))


class TestBfloat16:
    def test_outputs_are_float32_and_round_as_bfloat16(self, problem):
        params, (x, _), _ = problem
        exact = np.asarray(nj.models.standard_apply(params, x))
        rounded = np.asarray(nj.precision.bfloat16(nj.models.standard_apply)(params, x))
        assert rounded.dtype == np.float32
        scale = np.abs(np.asarray(params["v"])).sum(axis=0)
        assert 0 < np.abs(exact - rounded).max() < 20 * BFLOAT16 * scale.max()

    def test_weights_train_in_float32(self, problem):
        params, data, _ = problem
        net = nj.precision.bfloat16(nj.models.standard_apply)
        result = nj.fit(net, params, SGD, data, steps=5, **OPTIONS)
        assert {leaf.dtype for leaf in jax.tree.leaves(result.params)} == {jnp.dtype("float32")}
        w = np.asarray(result.params["w"])
        assert (w != np.asarray(jnp.asarray(w).astype(jnp.bfloat16).astype(jnp.float32))).any()
        assert result.history["loss"][-1] < result.history["loss"][0]

    def test_variables_of_a_model_pass_as_they_are(self):
        seen = []

        def apply_fn(params, state, x, train):
            seen.append((params.dtype, state.dtype, x.dtype, train))
            return x * params, state + 1

        y, state = nj.precision.bfloat16(apply_fn)(jnp.ones(()), jnp.zeros(()), jnp.ones((2, 1)), train=True)
        assert (y.dtype, state.dtype) == (jnp.float32, jnp.float32)
        assert seen == [(jnp.bfloat16, jnp.float32, jnp.bfloat16, True)]

    def test_labels_and_bytes_are_not_touched(self):
        seen = []
        nj.precision.bfloat16(lambda params, x: seen.append(x.dtype) or params)(
            jnp.ones(()), jnp.ones(2, jnp.uint8)
        )
        assert seen == [jnp.uint8]


TWO_DEVICES = """
import json, sys
import jax, numpy as np, optax
import narrow_jax as nj
rng = np.random.default_rng(0)
data = rng.normal(size=(24, 4)).astype(np.float32), rng.integers(3, size=24).astype(np.int32)
params = nj.initializers.mirrored_lecun(jax.random.key(1), inputs=4, width=12, outputs=3)
tx = nj.constraints.regime(optax.sgd(0.5, momentum=0.9), radius=0.5)
options = {"steps": 12, "loss": "cross_entropy", "batch_size": 8, "key": jax.random.key(0), "every": 4}
parts = []
def net(params, x):
    jax.debug.inspect_array_sharding(x, callback=lambda sharding: parts.append(sharding.shard_shape(x.shape)[0]))
    return nj.models.pairwise_apply(params, x)
devices = jax.local_devices()
kinds = {"one": (None, data), "two": (devices, data), "two, stream": (devices, nj.data.Stream(*data))}
ends = {}
for name, (devices, rows) in kinds.items():
    parts.clear()
    run = nj.fit(net, params, tx, rows, devices=devices, evaluation=data, **options)
    used = len(run.params["w"].sharding.device_set), sorted(set(parts))
    ends[name] = [used, np.asarray(run.params["w"]).tolist(), run.history["test_loss"].tolist()]
print(json.dumps(ends))
"""


def test_two_devices_train_as_one():
    """In a process of its own: the number of CPU devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWO_DEVICES],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    # devices that hold the weights, samples a device has of a batch and of what is measured at once
    assert {name: used for name, (used, _, _) in ends.items()} == {
        "one": [1, [8, 24]],
        "two": [2, [4, 12]],
        "two, stream": [2, [4, 12]],
    }
    _, weights, losses = ends["one"]
    assert losses[-1] < losses[0]
    for _, other, other_losses in ends.values():
        np.testing.assert_allclose(other, weights, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
