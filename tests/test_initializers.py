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


@functools.cache
def draw(name, seed=0, **options):
    """Return the draw as NumPy arrays. Few shapes: the first draw of a shape compiles for seconds."""
    return jax.tree.map(np.asarray, DRAWS[name](jax.random.key(seed), **options))


each_name = pytest.mark.parametrize("name", DRAWS)


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


def test_mirrored_lecun_moments_with_one_output():
    params = draw("mirrored_lecun", **LARGE, zeta=1e-9)
    assert (params["w"].shape, params["v"].shape) == ((30, 4000), (2000, 1))
    require_normal(params["w"][:, :2000], 1 / math.sqrt(30))
    require_normal(params["v"], 1 / math.sqrt(4000), absolute=True)


def test_mirrored_lecun_moments_with_several_outputs():
    params = draw("mirrored_lecun", **COLUMNS, zeta=1e-9)
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


@pytest.mark.parametrize("sizes", [LARGE, COLUMNS], ids=["one output", "three outputs"])
def test_halves_of_w_are_equal_bit_for_bit(sizes):
    w, half = draw("mirrored_lecun", **sizes)["w"], sizes["width"] // 2
    np.testing.assert_array_equal(w[:, :half], w[:, half:])
    assert len(np.unique(w, axis=1).T) == half


def test_lecun_has_no_mirror():
    assert len(np.unique(draw("lecun", **LARGE)["w"], axis=1).T) == 4000


def test_one_output_has_positive_v():
    v = draw("mirrored_lecun", **LARGE, zeta=1e-2)["v"]
    assert v.min() == np.float32(1e-2)
    # P(|N(0, 1/4000)| > 1e-2) = 0.527: the rest is lifted to ζ, not drawn again
    assert abs((v > np.float32(1e-2)).mean() - 0.527) < SIGMAS * 0.5 / math.sqrt(2000)


def test_several_outputs_have_mixed_signs_in_every_column():
    v = draw("mirrored_lecun", **COLUMNS, zeta=1e-2)["v"]
    assert np.abs(v).min() == np.float32(1e-2)
    positive = (v > 0).mean(axis=0)
    assert (np.abs(positive - 0.5) < SIGMAS * 0.5 / math.sqrt(400)).all()
    assert len({tuple(column > 0) for column in v.T}) == 3


@pytest.mark.parametrize("sizes", [LARGE, COLUMNS], ids=["one output", "three outputs"])
@pytest.mark.parametrize("kappa", [1.0, 2.0, 50.0])
def test_finite_kappa_bounds_the_ratio_in_every_column(sizes, kappa):
    v = draw("mirrored_lecun", **sizes, zeta=1e-3, kappa=kappa)["v"]
    free = draw("mirrored_lecun", **sizes, zeta=1e-9)["v"].astype(float)
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


@each_name
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
def test_bad_zeta_and_kappa_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=6, **bad)
