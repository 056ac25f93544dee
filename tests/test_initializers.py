"""Draws of the starting weights: distribution, mirror, feasibility, reproducibility, bad input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from narrow_jax import initializers

# moments are tested at this many standard deviations of the sample moment: 6e-7 a test by chance, keys are fixed
SIGMAS = 5
# the ratio of two float32 numbers, each a rounded product
RATIO = 1 + 4 * 2.0**-23

DRAWS = {"lecun": initializers.lecun, "mirrored_lecun": initializers.mirrored_lecun}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def require_normal(sample, deviation, absolute=False):
    """Compare mean, variance and fourth moment with those of N(0, deviation²); the mean of |x| if absolute."""
    x = np.asarray(sample, float).ravel() / deviation
    size = math.sqrt(x.size)
    mean, spread = (math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi)) if absolute else (0.0, 1.0)
    assert abs(x.mean() - mean) < SIGMAS * spread / size
    assert abs((x**2).mean() - 1) < SIGMAS * math.sqrt(2) / size
    assert abs((x**4).mean() - 3) < SIGMAS * math.sqrt(96) / size


def test_lecun_moments():
    params = initializers.lecun(jax.random.key(0), inputs=30, width=4000, outputs=3)
    assert (params["w"].shape, params["v"].shape) == ((30, 4000), (4000, 3))
    require_normal(params["w"], 1 / math.sqrt(30))
    require_normal(params["v"], 1 / math.sqrt(4000))


def test_mirrored_lecun_moments_with_one_output():
    params = initializers.mirrored_lecun(jax.random.key(0), inputs=30, width=20_000, zeta=1e-9)
    assert (params["w"].shape, params["v"].shape) == ((30, 20_000), (10_000, 1))
    require_normal(params["w"][:, :10_000], 1 / math.sqrt(30))
    require_normal(params["v"], 1 / math.sqrt(20_000), absolute=True)


def test_mirrored_lecun_moments_with_several_outputs():
    params = initializers.mirrored_lecun(jax.random.key(0), inputs=3, width=8000, outputs=5, zeta=1e-9)
    require_normal(params["v"], 1 / math.sqrt(8000))


def test_moment_test_notices_a_wrong_scale_and_a_wrong_law():
    normal = jax.random.normal(jax.random.key(0), (20_000,))
    require_normal(normal, 1.0)
    for wrong in (
        1.05 * normal,
        jax.random.uniform(jax.random.key(1), (20_000,), minval=-(3**0.5), maxval=3**0.5),
    ):
        with pytest.raises(AssertionError):
            require_normal(wrong, 1.0)


@pytest.mark.parametrize(("outputs", "width"), [(1, 2), (1, 44), (4, 60)])
def test_halves_of_w_are_equal_bit_for_bit(outputs, width):
    w = initializers.mirrored_lecun(jax.random.key(1), inputs=7, width=width, outputs=outputs)["w"]
    np.testing.assert_array_equal(w[:, : width // 2], w[:, width // 2 :])
    assert len(np.unique(w)) == 7 * width // 2


def test_lecun_has_no_mirror():
    w = initializers.lecun(jax.random.key(1), inputs=7, width=44)["w"]
    assert len(np.unique(w)) == 7 * 44


def test_one_output_has_positive_v():
    v = initializers.mirrored_lecun(jax.random.key(2), inputs=3, width=400, zeta=1e-2)["v"]
    assert v.min() == np.float32(1e-2)  # σ = 0.05: a few of 200 draws lie below ζ
    assert 150 < (np.asarray(v) > np.float32(1e-2)).sum() < 200


def test_several_outputs_have_mixed_signs_in_every_column():
    v = np.asarray(
        initializers.mirrored_lecun(jax.random.key(2), inputs=3, width=800, outputs=4, zeta=1e-2)["v"]
    )
    assert np.abs(v).min() == np.float32(1e-2)
    positive = (v > 0).mean(axis=0)
    assert (np.abs(positive - 0.5) < SIGMAS * 0.5 / math.sqrt(400)).all()
    assert len({tuple(column > 0) for column in v.T}) == 4


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("kappa", [1.0, 2.0, 50.0])
def test_finite_kappa_bounds_the_ratio_in_every_column(outputs, kappa):
    options = {"inputs": 3, "width": 120, "outputs": outputs}
    v = initializers.mirrored_lecun(jax.random.key(3), zeta=1e-3, kappa=kappa, **options)["v"]
    free = np.asarray(initializers.mirrored_lecun(jax.random.key(3), zeta=1e-12, **options)["v"], float)
    magnitudes = np.abs(v)
    assert (magnitudes.max(axis=0) <= kappa * RATIO * magnitudes.min(axis=0)).all()
    assert magnitudes.min() >= np.float32(1e-3)
    np.testing.assert_array_equal(np.sign(v), np.sign(free))
    # closest feasible point of the draw: the residual makes an obtuse angle with every direction into the set
    rng = np.random.default_rng(0)
    residual = np.abs(free) - np.abs(np.asarray(v, float))
    for _ in range(50):
        other = rng.uniform(1, kappa, size=free.shape) * rng.uniform(1e-3, 0.3)
        assert (residual * (other - magnitudes)).sum() <= 1e-6


@each_draw
def test_draw_repeats_with_the_key_and_changes_with_it(draw):
    first, again, other = (draw(jax.random.key(seed), inputs=4, width=6) for seed in (7, 7, 8))
    for name in ("w", "v"):
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@each_draw
def test_w_and_v_are_drawn_apart(draw):
    params = draw(jax.random.key(0), inputs=1, width=2000)
    v = np.asarray(params["v"]).ravel()
    correlation = np.corrcoef(np.abs(np.asarray(params["w"])[0, : v.size]), np.abs(v))[0, 1]
    assert abs(correlation) < SIGMAS / math.sqrt(v.size)


@each_draw
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_the_one_asked_for(draw, dtype):
    params = draw(jax.random.key(0), inputs=4, width=6, outputs=2, dtype=dtype)
    assert {str(leaf.dtype) for leaf in params.values()} == {dtype}


@each_draw
def test_float64_draws_have_float64_digits(draw, x64):
    params = draw(jax.random.key(0), inputs=4, width=6, dtype="float64")
    assert params["w"].dtype == params["v"].dtype == np.float64
    assert not np.array_equal(params["w"], np.float32(params["w"]))


@each_draw
def test_draw_works_under_jit_and_vmap(draw):
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.jit(jax.vmap(lambda key: draw(key, inputs=4, width=6, outputs=2)))(keys)
    for i, key in enumerate(keys):
        single = draw(key, inputs=4, width=6, outputs=2)
        for name in ("w", "v"):
            # jit may fuse the division by sqrt(d): one unit in the last place
            np.testing.assert_allclose(many[name][i], single[name], rtol=2e-7)


@each_draw
def test_float64_while_x64_is_off_is_refused(draw):
    with pytest.raises(ValueError, match="float64 was asked for while x64 is off.*jax_enable_x64"):
        draw(jax.random.key(0), inputs=4, width=6, dtype=jnp.float64)


@each_draw
@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_dtype_that_is_not_floating_is_refused(draw, dtype):
    with pytest.raises(TypeError, match=f"dtype is {dtype}; expected a floating dtype"):
        draw(jax.random.key(0), inputs=4, width=6, dtype=dtype)


@each_draw
@pytest.mark.parametrize("size", ["inputs", "width", "outputs"])
@pytest.mark.parametrize("value", [0, -2, 2.0, True])
def test_size_that_is_no_positive_integer_is_refused(draw, size, value):
    sizes = {"inputs": 4, "width": 6, "outputs": 1} | {size: value}
    # the sizes are annotated int: the suite's type checks would speak first
    with pytest.raises(ValueError, match=rf"{size} is {value}; expected an integer ≥ [12]"):
        getattr(draw, "__wrapped__", draw)(jax.random.key(0), **sizes)


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
