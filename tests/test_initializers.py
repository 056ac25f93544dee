"""Draws of the starting weights: distribution, mirror, feasibility, reproducibility, bad input."""

import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from narrow_jax import initializers

# standard deviations of the sample moments: 6e-7 a comparison by chance, and the keys are fixed
SIGMAS = 5
# the ratio of two float32 numbers, each a rounded product
RATIO = 1 + 4 * 2.0**-23
# inner products of 2000 float32 numbers of order 0.1, each rounded at 1e-8
ANGLE = 1e-6

DRAWS = {"lecun": initializers.lecun, "mirrored_lecun": initializers.mirrored_lecun}


def one_layer(key, *, width, **options):
    """Return the draw of the deep net with one hidden layer in the form of the others."""
    params = initializers.mirrored_mlp(key, widths=(width // 2,), **options)
    w = [params[half]["w1"] for half in ("plus", "minus")]
    return {"w": jnp.concatenate(w, axis=1), "v": params["v"]}


DRAWS["mirrored_mlp"] = one_layer


@functools.cache
def draw(name, seed=0, **options):
    """Return the draw as NumPy arrays. Few shapes: the first draw of a shape compiles for seconds."""
    return jax.tree.map(np.asarray, DRAWS[name](jax.random.key(seed), **options))


each_name = pytest.mark.parametrize("name", DRAWS)
each_mirrored = pytest.mark.parametrize("name", ["mirrored_lecun", "mirrored_mlp"])


def require_normal(sample, deviation, absolute=False):
    """Compare mean, variance and fourth moment with those of N(0, deviation²), or of its magnitude."""
    x = np.asarray(sample, float).ravel() / deviation
    size = math.sqrt(x.size)
    mean, spread = (math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)) if absolute else (0.0, 1.0)
    assert abs(x.mean() - mean) < SIGMAS * spread / size
    assert abs((x**2).mean() - 1) < SIGMAS * math.sqrt(2) / size
    assert abs((x**4).mean() - 3) < SIGMAS * math.sqrt(96) / size


LARGE = {"inputs": 30, "width": 4000}
COLUMNS = {"inputs": 4, "width": 800, "outputs": 3}


def test_lecun_moments():
    params = draw("lecun", **LARGE)
    assert (params["w"].shape, params["v"].shape) == ((30, 4000), (4000, 1))
    require_normal(params["w"], 1 / math.sqrt(30))
    require_normal(params["v"], 1 / math.sqrt(4000))


@each_mirrored
def test_mirrored_moments_with_one_output(name):
    params = draw(name, **LARGE, zeta=1e-9)
    assert (params["w"].shape, params["v"].shape) == ((30, 4000), (2000, 1))
    require_normal(params["w"][:, :2000], 1 / math.sqrt(30))
    require_normal(params["v"], 1 / math.sqrt(4000), absolute=True)


@each_mirrored
def test_mirrored_moments_with_several_outputs(name):
    params = draw(name, **COLUMNS, zeta=1e-9)
    assert (params["w"].shape, params["v"].shape) == ((4, 800), (400, 3))
    require_normal(params["w"][:, :400], 1 / 2)
    require_normal(params["v"], 1 / math.sqrt(800))


def test_moment_test_notices_a_wrong_scale_and_a_wrong_law():
    normal = jax.random.normal(jax.random.key(0), (20_000,))
    require_normal(normal, 1.0)
    for wrong in (
        1.05 * normal,
        jax.random.uniform(jax.random.key(1), (20_000,), minval=-(3**0.5), maxval=3**0.5),
    ):
        with pytest.raises(AssertionError):
            require_normal(wrong, 1.0)


@each_mirrored
@pytest.mark.parametrize("sizes", [LARGE, COLUMNS], ids=["one output", "three outputs"])
def test_halves_of_w_are_equal_bit_for_bit(name, sizes):
    w, half = draw(name, **sizes)["w"], sizes["width"] // 2
    np.testing.assert_array_equal(w[:, :half], w[:, half:])
    assert len(np.unique(w, axis=1).T) == half


def test_lecun_has_no_mirror():
    assert len(np.unique(draw("lecun", **LARGE)["w"], axis=1).T) == 4000


@each_mirrored
def test_one_output_has_positive_v(name):
    v = draw(name, **LARGE, zeta=1e-2)["v"]
    assert v.min() == np.float32(1e-2)
    # P(|N(0, 1/4000)| > 1e-2) = 0.527: the rest is lifted to ζ, not drawn again
    assert abs((v > np.float32(1e-2)).mean() - 0.527) < SIGMAS * 0.5 / math.sqrt(2000)


@each_mirrored
def test_several_outputs_have_mixed_signs_in_every_column(name):
    v = draw(name, **COLUMNS, zeta=1e-2)["v"]
    assert np.abs(v).min() == np.float32(1e-2)
    positive = (v > 0).mean(axis=0)
    assert (np.abs(positive - 0.5) < SIGMAS * 0.5 / math.sqrt(400)).all()
    assert len({tuple(column > 0) for column in v.T}) == 3


@pytest.mark.parametrize("sizes", [LARGE, COLUMNS], ids=["one output", "three outputs"])
@pytest.mark.parametrize("kappa", [1.0, 2.0, 50.0])
@each_mirrored
def test_finite_kappa_bounds_the_ratio_in_every_column(name, sizes, kappa):
    v = draw(name, **sizes, zeta=1e-3, kappa=kappa)["v"]
    free = draw(name, **sizes, zeta=1e-9)["v"].astype(float)
    magnitudes = np.abs(v)
    assert (magnitudes.max(axis=0) <= kappa * RATIO * magnitudes.min(axis=0)).all()
    assert magnitudes.min() >= np.float32(1e-3)
    np.testing.assert_array_equal(np.sign(v), np.sign(free))
    # closest feasible point of the draw: the residual makes an obtuse angle with every direction into the set
    residual, rng = np.abs(free) - magnitudes.astype(float), np.random.default_rng(0)
    assert np.abs(residual).max() > 1e-3
    for _ in range(50):
        other = rng.uniform(1, kappa, size=free.shape) * rng.uniform(1e-3, 0.3)
        assert (residual * (other - magnitudes)).sum() <= ANGLE


@each_name
def test_draw_repeats_with_the_key_and_changes_with_it(name):
    first, other = (draw(name, seed, **LARGE) for seed in (0, 8))
    again = DRAWS[name](jax.random.key(0), **LARGE)
    for leaf in ("w", "v"):
        np.testing.assert_array_equal(first[leaf], again[leaf])
        assert not np.array_equal(first[leaf], other[leaf])


@each_name
def test_w_and_v_are_drawn_apart(name):
    params = draw(name, **LARGE)
    v = np.abs(params["v"][:, 0])
    correlation = np.corrcoef(np.abs(params["w"][0, : v.size]), v)[0, 1]
    assert abs(correlation) < SIGMAS / math.sqrt(v.size)


@each_name
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_the_one_asked_for(name, dtype):
    params = jax.eval_shape(
        functools.partial(DRAWS[name], inputs=4, width=6, outputs=2, dtype=dtype), jax.random.key(0)
    )
    assert {str(leaf.dtype) for leaf in params.values()} == {dtype}


@each_name
def test_float64_draws_have_float64_digits(name, x64):
    params = draw(name, inputs=4, width=6, dtype="float64")
    assert params["w"].dtype == params["v"].dtype == np.float64
    assert not np.array_equal(params["w"], np.float32(params["w"]))


@each_name
def test_jitted_and_vmapped_draw_is_the_eager_one(name):
    keys = jnp.stack([jax.random.key(seed) for seed in (0, 8)])
    many = jax.jit(jax.vmap(functools.partial(DRAWS[name], **LARGE)))(keys)
    for i, seed in enumerate((0, 8)):
        for leaf in ("w", "v"):
            # jit may fuse the division by sqrt(d): one unit in the last place
            np.testing.assert_allclose(many[leaf][i], draw(name, seed, **LARGE)[leaf], rtol=2e-7)


@each_name
def test_float64_while_x64_is_off_is_refused(name):
    with pytest.raises(ValueError, match=r"float64 was asked for while x64 is off.*jax_enable_x64"):
        DRAWS[name](jax.random.key(0), inputs=4, width=6, dtype=jnp.float64)


@each_name
@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_dtype_that_is_not_floating_is_refused(name, dtype):
    with pytest.raises(TypeError, match=f"dtype is {dtype}; expected a floating dtype"):
        DRAWS[name](jax.random.key(0), inputs=4, width=6, dtype=dtype)


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", ["lecun", "mirrored_lecun"])
@pytest.mark.parametrize("size", ["inputs", "width", "outputs"])
@pytest.mark.parametrize("value", [0, -2, 2.0, True])
def test_size_that_is_no_positive_integer_is_refused(name, size, value, unchecked):
    sizes = {"inputs": 4, "width": 6, "outputs": 1} | {size: value}
    with pytest.raises(ValueError, match=rf"{size} is {value}; expected an integer ≥ [12]"):
        DRAWS[name](jax.random.key(0), **sizes)


@pytest.mark.parametrize("width", [3, 45])
def test_odd_width_is_refused_with_its_neighbours(width):
    with pytest.raises(
        ValueError, match=f"width is {width}; expected an even.*use {width - 1} or {width + 1}"
    ):
        initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=width)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"zeta": 0.0}, "zeta is 0.0; expected a finite number > 0"),
        ({"zeta": -1.0}, "zeta is -1.0; expected a finite number > 0"),
        ({"zeta": math.inf}, "zeta is inf; expected a finite number > 0"),
        ({"zeta": math.nan}, "zeta is nan; expected a finite number > 0"),
        ({"kappa": 0.5}, r"kappa is 0.5; expected max\|v\|/min\|v\| ≥ 1"),
        ({"kappa": math.nan}, "kappa is nan; expected"),
    ],
)
@each_mirrored
def test_bad_zeta_and_kappa_are_refused(name, bad, message):
    with pytest.raises(ValueError, match=message):
        DRAWS[name](jax.random.key(0), inputs=4, width=6, **bad)


# the deep net


def test_every_layer_has_its_own_scale_and_draw():
    params = initializers.mirrored_mlp(jax.random.key(0), inputs=20, widths=(200, 100, 200), scale=3.0)
    for name, inputs in (("w1", 20), ("w2", 200), ("w3", 100)):
        require_normal(params["plus"][name], 3 / math.sqrt(inputs))
        np.testing.assert_array_equal(params["plus"][name], params["minus"][name])
    second, third = (np.asarray(params["plus"][name]).ravel() for name in ("w2", "w3"))
    assert abs(np.corrcoef(second, third)[0, 1]) < SIGMAS / math.sqrt(second.size)
    assert params["v"].shape == (200, 1)  # its scale is that of 2·200 units, whatever the layers below have
    params = initializers.mirrored_mlp(jax.random.key(0), inputs=2, widths=(3, 2000), scale=7.0, zeta=1e-9)
    require_normal(params["v"], 1 / math.sqrt(4000), absolute=True)


def test_halves_are_arrays_of_their_own():
    params = initializers.mirrored_mlp(jax.random.key(0), inputs=3, widths=(4,))
    given = jax.jit(lambda p: jax.tree.map(lambda leaf: leaf + 1, p), donate_argnums=0)(
        params
    )  # each buffer once
    np.testing.assert_array_equal(given["plus"]["w1"], given["minus"]["w1"])


def test_last_layer_may_be_narrower_than_the_outputs():
    params = initializers.mirrored_mlp(jax.random.key(0), inputs=3, widths=(4, 2), outputs=5)
    assert params["v"].shape == (2, 5)


def test_scale_may_be_traced():
    scales = jnp.array([1.0, 4.0])
    many = jax.vmap(lambda c: initializers.mirrored_mlp(jax.random.key(0), inputs=3, widths=(4, 3), scale=c))(
        scales
    )
    np.testing.assert_allclose(many["minus"]["w2"][1], 4 * many["minus"]["w2"][0], rtol=1e-6)
    np.testing.assert_array_equal(many["v"][0], many["v"][1])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"widths": ()}, ValueError, r"widths are \(\); expected n_1 … n_H .*a net of depth 0 has none"),
        ({"widths": 30}, TypeError, "widths is 30; expected a tuple of n_1 … n_H"),
        ({"widths": (4, 0)}, ValueError, "width n_2 is 0; expected an integer ≥ 1"),
        ({"widths": (4.0,)}, ValueError, "width n_1 is 4.0; expected an integer ≥ 1"),
        ({"inputs": 0}, ValueError, "inputs is 0; expected an integer ≥ 1"),
        ({"outputs": 0}, ValueError, "outputs is 0; expected an integer ≥ 1"),
        ({"scale": 0.0}, ValueError, "scale is 0.0; expected a finite number > 0"),
        ({"scale": math.inf}, ValueError, "scale is inf; expected a finite number > 0"),
        ({"key": 42}, TypeError, r"key is 42; expected a random key: pass jax.random.key\(42\)"),
    ],
)
def test_bad_arguments_of_the_deep_net_are_refused(bad, error, message, unchecked):
    with pytest.raises(error, match=message):
        initializers.mirrored_mlp(**({"key": jax.random.key(0), "inputs": 3, "widths": (4, 3)} | bad))


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: initializers.mirrored_mlp(key, inputs=3, widths=(4, 4), scale=1e6, dtype=jnp.float16),
        lambda key: initializers.mirrored_lecun(key, inputs=3, width=4, zeta=1e6, dtype=jnp.float16),
        lambda key: initializers.pyramidal(key, inputs=3, widths=(5, 3, 2), scale=1e6, dtype=jnp.float16),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_weights_beyond_their_dtype_are_refused(draw):
    with pytest.raises(ValueError, match=r"beyond float16, which ends at 6\.55e\+04"):
        draw(jax.random.key(0))


def test_sizes_beyond_the_dtype_are_refused_where_weights_are_traced():
    with pytest.raises(ValueError, match=r"zeta is 100000\.0: weights of that size are beyond float16"):
        jax.jit(lambda key: initializers.mirrored_lecun(key, inputs=4, width=8, zeta=1e5, dtype=jnp.float16))(
            jax.random.key(0)
        )
