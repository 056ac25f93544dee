"""The projections: feasible, idempotent, non-expansive, optimal by certificates that know no algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from narrow_jax.projections import l2_ball, l2_norm, ratio_cone, sign_pattern

# float64: a norm, a quotient and a product of at most 12 numbers; measured 3·2⁻⁵² relative to the point
ROUNDING = 32 * 2.0**-52
# SLSQP stops when the objective changes by less than 1e-15: the point is good to the square root of that
SOLVER = 2e-7
# central differences in float64 with step 1e-6
DIFFERENCES = 1e-6

PROJECT_BALL, PROJECT_CONE = jax.jit(l2_ball), jax.jit(ratio_cone)

numbers = st.floats(-100, 100, allow_subnormal=False)
vectors = st.lists(numbers, min_size=6, max_size=6).map(np.array)
trees = st.tuples(vectors, vectors).map(lambda pair: {"a": pair[0].reshape(2, 3), "b": {"c": pair[1]}})
radii = st.one_of(st.just(0.0), st.floats(1e-3, 300))
# columns with ties, zeros and negative entries among ordinary numbers
columns = st.lists(st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5, 50.0]), numbers), min_size=5, max_size=5)
columns = columns.map(np.array)
zetas = st.sampled_from([1e-3, 0.5, 7.0])
kappas = st.sampled_from([1.0, 1.5, 4.0, 60.0, np.inf])


def project(fn, *args):
    """Return the projection in float64 as NumPy arrays."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, fn(*jax.tree.map(jnp.asarray, args)))


def flat(tree):
    return np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(tree)])


# The ball


@given(trees, trees, radii)
def test_ball_point_is_feasible_and_the_closest_one(x, center, radius):
    p, x, c = flat(project(PROJECT_BALL, x, center, radius)), flat(x), flat(center)
    size = np.linalg.norm(x - c) + np.linalg.norm(c)
    assert np.linalg.norm(p - c) <= radius + ROUNDING * (radius + np.linalg.norm(c))
    # max over the ball of (x − p)·(u − c) is ε‖x − p‖: p is optimal if and only if it attains it
    assert (x - p) @ (p - c) >= radius * np.linalg.norm(x - p) - ROUNDING * size**2


@given(trees, trees, radii)
def test_ball_returns_a_point_inside_bit_for_bit(x, center, radius):
    if np.linalg.norm(flat(x) - flat(center)) < radius * (1 - ROUNDING):
        np.testing.assert_array_equal(flat(project(PROJECT_BALL, x, center, radius)), flat(x))
    once = project(PROJECT_BALL, x, center, radius)
    again = project(PROJECT_BALL, once, center, radius)
    np.testing.assert_allclose(
        flat(again), flat(once), rtol=0, atol=ROUNDING * (radius + np.abs(flat(center)).max())
    )


@given(trees, trees, trees, radii)
def test_ball_is_non_expansive(x, y, center, radius):
    p, q = (flat(project(PROJECT_BALL, z, center, radius)) for z in (x, y))
    slack = ROUNDING * sum(np.linalg.norm(flat(z)) for z in (x, y, center))
    assert np.linalg.norm(p - q) <= np.linalg.norm(flat(x) - flat(y)) + slack


def test_ball_agrees_with_a_generic_solver():
    rng = np.random.default_rng(0)
    for radius in (0.3, 2.0):
        x, c = rng.normal(size=5), rng.normal(size=5)
        ball = {"type": "ineq", "fun": lambda p, c=c, r=radius: r**2 - ((p - c) ** 2).sum()}
        found = scipy.optimize.minimize(
            lambda p, x=x: ((p - x) ** 2).sum(), c, method="SLSQP", constraints=ball, options={"ftol": 1e-15}
        )
        np.testing.assert_allclose(project(PROJECT_BALL, x, c, radius), found.x, atol=SOLVER)


@pytest.mark.parametrize("radius", [0.0, 1.0, np.inf])
def test_ball_at_its_centre_returns_it_bit_for_bit(radius):
    center = {"a": np.array([0.1, -3.0]), "b": np.array(1e-300)}
    np.testing.assert_array_equal(flat(project(PROJECT_BALL, center, center, radius)), flat(center))


def test_ball_of_radius_zero_is_its_centre_and_an_infinite_one_everything():
    x, center = np.array([3.0, 4.0]), np.array([0.1, 0.2])
    np.testing.assert_array_equal(project(PROJECT_BALL, x, center, 0.0), center)
    np.testing.assert_array_equal(project(PROJECT_BALL, x, center, np.inf), x)


# squared norms (and in the last row of each dtype the norm itself) overflow or underflow in that dtype
EXTREMES = [("float16", s) for s in (200.0, 6e4, 1e-5)] + [("bfloat16", s) for s in (1e30, 1e38, 1e-30)]
MANY = 400
EXTREMES += [("float32", s) for s in (1e20, 1e38, 3e-30)] + [("float64", s) for s in (1e200, 1e308, 1e-200)]


@pytest.mark.parametrize(("dtype", "scale"), EXTREMES)
@pytest.mark.parametrize("shrink", [1.0, 0.5, 1e-3])
def test_ball_survives_overflow_and_underflow_of_the_squares(dtype, scale, shrink, x64):
    x = np.zeros(MANY, jnp.dtype(dtype))
    x[:2] = np.array([0.6, -0.8]) * scale
    wide = np.asarray(x, np.longdouble)
    norm = np.sqrt(((wide / scale) ** 2).sum()) * scale
    radius = float(shrink * norm)
    p = np.asarray(PROJECT_BALL(x, np.zeros_like(x), radius), np.longdouble)
    eps = float(jnp.finfo(dtype).eps)
    tiny = float(jnp.finfo(dtype).smallest_subnormal)  # float16 results may be subnormal
    np.testing.assert_allclose(p, wide * shrink, rtol=4 * eps, atol=2 * tiny)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 6e4), ("bfloat16", 3e38), ("float32", 3e38)])
def test_ball_never_lets_a_huge_point_through(dtype, largest):
    x = np.full(MANY, largest, jnp.dtype(dtype))
    p = np.asarray(PROJECT_BALL(x, np.zeros_like(x), 1.0), float)
    # where the norm itself is no float32 number the centre comes back
    assert np.linalg.norm(p) <= 1 + 4 * float(jnp.finfo(dtype).eps)


def test_norm_of_huge_and_tiny_entries():
    for scale in (1e-35, 1e-20, 1.0, 1e20, 1e37, 8.6e37, 3e38):
        np.testing.assert_allclose(
            float(l2_norm(np.float32([0.6, 0.8]) * np.float32(scale))), scale, rtol=1e-6
        )
    assert l2_norm({}) == l2_norm(jnp.zeros((2, 0))) == l2_norm(jnp.zeros(3)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("radius", [0.0, 1.0])
def test_ball_keeps_a_non_finite_entry_visible(bad, radius):
    p = project(
        PROJECT_BALL,
        {"a": np.array([1.0, bad]), "b": np.ones(2)},
        {"a": np.zeros(2), "b": np.zeros(2)},
        radius,
    )
    assert not np.isfinite(p["a"][1])


@pytest.mark.parametrize("radius", [-1.0, np.nan])
def test_bad_radius_is_refused_and_poisons_the_result_where_it_is_traced(radius):
    with pytest.raises(ValueError, match=f"radius is {radius}; expected a number ≥ 0"):
        l2_ball(jnp.ones(2), jnp.zeros(2), radius)
    assert np.isnan(PROJECT_BALL(jnp.ones(2), jnp.zeros(2), radius)).all()


BALL_GRADIENT = jax.jit(
    jax.grad(lambda x, c, r: jnp.sum(jnp.array([1.0, 2.0]) * l2_ball(x, c, r)), (0, 1, 2))
)


def require_derivatives(fn, jacobians, *args):
    """Compare forward and reverse mode with central differences, argument by argument."""
    args = [np.array(arg, float) for arg in args]
    found = jax.tree.map(np.asarray, jacobians(*args))
    for argument, (forward, reverse) in enumerate(zip(*found, strict=True)):
        for entry in np.ndindex(args[argument].shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [np.array(arg) for arg in args]
                moved[argument][entry] += step
                ends.append(np.asarray(fn(*moved)))
            slope = (ends[0] - ends[1]) / 2e-6
            for mode in (forward, reverse):
                np.testing.assert_allclose(mode[(..., *entry)], slope, atol=DIFFERENCES, rtol=DIFFERENCES)


def both_modes(fn, count):
    numbers = tuple(range(count))
    return jax.jit(lambda *args: (jax.jacfwd(fn, numbers)(*args), jax.jacrev(fn, numbers)(*args)))


def test_ball_gradient_equals_finite_differences(x64):
    jacobians = both_modes(l2_ball, 3)
    for x in ([3.0, 4.0], [0.5, 0.1]):
        require_derivatives(PROJECT_BALL, jacobians, x, [0.3, -0.2], 1.5)


@pytest.mark.parametrize("radius", [0.0, 1.0, np.inf])
@pytest.mark.parametrize("x", [[0.3, -0.2], [3.0, 4.0], [0.3, 0.5]], ids=["centre", "outside", "inside"])
def test_ball_gradient_is_finite_everywhere(x, radius):
    gradient = BALL_GRADIENT(jnp.array(x), jnp.array([0.3, -0.2]), radius)
    assert np.isfinite(flat(gradient)).all()
    if radius == np.inf or (x == [0.3, -0.2] and radius > 0):
        np.testing.assert_array_equal(gradient[0], [1.0, 2.0])


def test_ball_and_its_gradient_survive_overflow_and_underflow_under_vmap_too():
    u = np.array([0.6, 0.8])
    scales, radii = np.array([1e30, 1e-25, 2.0, 0.0, 3.0]), np.array([1.0, 1e-30, 1.0, 1.0, np.inf])
    x, r = jnp.asarray(scales[:, None] * u, "float32"), jnp.asarray(radii, "float32")
    points = jax.jit(jax.vmap(l2_ball, (0, None, 0)))(x, jnp.zeros(2), r)
    gradients = jax.vmap(BALL_GRADIENT, (0, None, 0))(x, jnp.zeros(2), r)[0]
    single = [BALL_GRADIENT(a, jnp.zeros(2), b)[0] for a, b in zip(x, r, strict=True)]
    for i, (scale, radius) in enumerate(zip(scales, radii, strict=True)):
        np.testing.assert_allclose(points[i], min(scale, radius) * u, rtol=1e-6)
        tangent = radius / scale * (np.eye(2) - np.outer(u, u)) if scale > radius else np.eye(2)
        for found in (gradients[i], single[i]):
            np.testing.assert_allclose(found, tangent @ [1.0, 2.0], rtol=1e-5)


# The cone


def require_closest(v, p, zeta, kappa):
    """Certify p as the projection of v: support functions of the cone, no threshold in sight.

    The set is ζ·conv{1, κ}^h + cone{1, κ}^h. With r = v − p and g = max over {1, κ}^h of r·u, the maximum
    of r·u over the set is ζg if g ≤ 0 and infinite otherwise: p is optimal if and only if g ≤ 0 and r·p = ζg.
    """
    if kappa == np.inf:
        np.testing.assert_array_equal(p, np.maximum(v, zeta))
        return
    size = np.abs(v).sum() + kappa * zeta
    assert p.min() >= zeta * (1 - ROUNDING)
    assert p.max() <= kappa * p.min() * (1 + ROUNDING)
    r = v - p
    g = np.maximum(r, kappa * r).sum()
    assert g <= ROUNDING * kappa * size
    assert r @ p >= zeta * min(g, 0) - ROUNDING * size**2


@given(columns, zetas, kappas)
def test_cone_point_is_feasible_and_the_closest_one(v, zeta, kappa):
    require_closest(v, project(PROJECT_CONE, v, zeta, kappa), zeta, kappa)


def test_clipping_at_zeta_and_capping_is_not_the_projection():
    v = np.array([-1.0, 1.0, 10.0, 3.0, 2.0])
    clipped = np.maximum(v, 0.5)
    with pytest.raises(AssertionError):
        require_closest(v, np.minimum(clipped, 4 * clipped.min()), 0.5, 4.0)
    require_closest(v, project(PROJECT_CONE, v, 0.5, 4.0), 0.5, 4.0)


@given(columns, zetas, kappas)
def test_cone_returns_its_own_points_bit_for_bit(v, zeta, kappa):
    once = project(PROJECT_CONE, v, zeta, kappa)
    np.testing.assert_array_equal(project(PROJECT_CONE, once, zeta, kappa), once)


@given(columns, columns, zetas, kappas)
def test_cone_is_non_expansive(v, u, zeta, kappa):
    p, q = (project(PROJECT_CONE, z, zeta, kappa) for z in (v, u))
    slack = ROUNDING * (np.linalg.norm(v) + np.linalg.norm(u) + zeta)
    assert np.linalg.norm(p - q) <= np.linalg.norm(v - u) + slack


@pytest.mark.parametrize("kappa", [1.0, 3.0, 20.0])
def test_cone_agrees_with_a_generic_solver(kappa):
    rng, zeta, h = np.random.default_rng(int(kappa)), 0.4, 5
    ratios = np.array([kappa * np.eye(h)[i] - np.eye(h)[j] for i in range(h) for j in range(h) if i != j])
    constraints = [{"type": "ineq", "fun": lambda u: ratios @ u, "jac": lambda u: ratios}]
    for v in rng.normal(size=(6, h)) * rng.choice([0.5, 3.0], size=(6, 1)):
        found = scipy.optimize.minimize(
            lambda u, v=v: ((u - v) ** 2).sum(),
            np.full(h, 1.0),
            jac=lambda u, v=v: 2 * (u - v),
            method="SLSQP",
            bounds=[(zeta, None)] * h,
            constraints=constraints,
            options={"ftol": 1e-15, "maxiter": 300},
        )
        np.testing.assert_allclose(project(PROJECT_CONE, v, zeta, kappa), found.x, atol=SOLVER)


@given(columns)
def test_kappa_one_makes_all_entries_their_mean_or_zeta(v):
    p = project(PROJECT_CONE, v, 1e-3, 1.0)
    assert len(set(p)) == 1
    assert p[0] == pytest.approx(max(1e-3, v.mean()), rel=ROUNDING, abs=ROUNDING * np.abs(v).max())


@pytest.mark.parametrize("kappa", [1.0, 2.0, np.inf])
@pytest.mark.parametrize("shape", [(0,), (1,), (0, 3), (1, 3)])
def test_columns_of_no_and_one_entry(shape, kappa):
    v = np.linspace(-1, 2, np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(project(PROJECT_CONE, v, 0.5, kappa), np.maximum(v, 0.5))


@pytest.mark.parametrize("kappa", [3.0, np.inf])
def test_every_column_keeps_its_own_signs_and_threshold(kappa):
    rng = np.random.default_rng(0)
    v, signs = 2 * rng.normal(size=(5, 3)), rng.choice([-1.0, 1.0], size=(5, 3))
    p = project(PROJECT_CONE, v, 0.3, kappa, signs)
    np.testing.assert_array_equal(np.sign(p), signs)
    for column, p_column, s in zip(v.T, p.T, signs.T, strict=True):
        require_closest(column * s, p_column * s, 0.3, kappa)
        np.testing.assert_array_equal(p_column, s * project(PROJECT_CONE, column * s, 0.3, kappa))


def test_sign_pattern_of_zero_is_positive():
    np.testing.assert_array_equal(
        jax.jit(sign_pattern)(np.float32([[-2.0, 0.0], [3.0, -0.0]])), [[-1, 1], [1, 1]]
    )


def test_cone_under_vmap_over_v_zeta_and_kappa_equals_single_calls():
    v = np.random.default_rng(0).normal(size=(4, 5)) * 3
    zeta, kappa = np.array([0.1, 0.5, 1e-3, 2.0]), np.array([1.0, 5.0, np.inf, 1.5])
    many = project(jax.jit(jax.vmap(ratio_cone)), v, zeta, kappa)
    over_kappa = project(jax.jit(jax.vmap(ratio_cone, (None, None, 0))), v[0], 0.5, kappa)
    for i in range(4):
        require_closest(v[i], many[i], zeta[i], kappa[i])
        require_closest(v[0], over_kappa[i], 0.5, kappa[i])


# some entries raised, some lowered, some free; all far from a kink
SMOOTH = [([-1.0, 1.0, 10.0], 0.5, 4.0), ([0.2, 0.9, 3.0], 0.5, 3.0), ([0.1, 2.0, 3.0], 0.5, np.inf)]
SMOOTH += [([1.0, 2.0, 3.0], 0.5, 40.0), ([-1.0, -2.0, -3.0], 0.5, 2.0), ([-1.0, 0.2, 90.0], 0.5, 1.0)]


CONE_JACOBIANS = both_modes(ratio_cone, 3)


@pytest.mark.parametrize(("v", "zeta", "kappa"), SMOOTH)
def test_cone_gradient_equals_finite_differences(v, zeta, kappa, x64):
    kappa = np.array(kappa)
    if 1 < kappa < np.inf:
        require_derivatives(PROJECT_CONE, CONE_JACOBIANS, v, zeta, kappa)
    else:  # κ itself cannot move both ways
        require_derivatives(
            lambda v, zeta: PROJECT_CONE(v, zeta, kappa),
            lambda v, zeta: [mode[:2] for mode in CONE_JACOBIANS(v, zeta, kappa)],
            v,
            zeta,
        )


CONE_GRADIENT = jax.jit(jax.grad(lambda *args: jnp.sum(ratio_cone(*args) ** 2), (0, 1, 2)))


@given(columns, zetas, kappas)
def test_cone_gradient_is_finite_everywhere(v, zeta, kappa):
    assert np.isfinite(flat(project(CONE_GRADIENT, v, zeta, kappa))).all()


@pytest.mark.parametrize("kappa", [1e6, 1e20, 1e30])
def test_huge_kappa_in_float32(kappa):
    few = np.float32([1e-5, -3.0, 2.0, 5.0])
    np.testing.assert_array_equal(PROJECT_CONE(few, 1e-3, kappa), np.maximum(few, np.float32(1e-3)))
    # lowering the entry at κ·10⁵ costs κ² times more than raising the others to 10⁵
    large = np.float32([1e-5, -3.0, 2.0, 1e5 * kappa])
    np.testing.assert_allclose(PROJECT_CONE(large, 1e-3, kappa), [1e5, 1e5, 1e5, 1e5 * kappa], rtol=1e-5)
    assert np.isfinite(CONE_GRADIENT(few, 1e-3, kappa)[0]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kappa", [3.0, np.inf])
def test_cone_keeps_the_dtype_and_is_feasible_to_its_ulps(dtype, kappa):
    v = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)), dtype)
    p = PROJECT_CONE(v, 0.1, kappa)
    assert p.dtype == dtype
    magnitudes, slack = np.asarray(p, float), 1 + 2 * float(jnp.finfo(dtype).eps)
    assert magnitudes.min() >= 0.1 / slack
    assert (magnitudes.max(axis=0) <= kappa * slack * magnitudes.min(axis=0)).all()


@pytest.mark.parametrize("kappa", [1.0, 3.0, np.inf])
def test_cone_keeps_nan_and_positive_infinity_visible(kappa):
    for bad in (np.nan, np.inf):
        p = project(PROJECT_CONE, np.array([1.0, bad, -2.0, 0.0, 3.0]), 0.5, kappa)
        assert not np.isfinite(p[1])


@pytest.mark.parametrize(
    ("zeta", "kappa", "message"),
    [
        (0.0, 2.0, "zeta is 0.0; expected a finite number > 0"),
        (np.nan, 2.0, "zeta is nan; expected a finite number > 0"),
        (1e-3, 0.99, r"kappa is 0.99; expected max\|v\|/min\|v\| ≥ 1"),
        (1e-3, np.nan, "kappa is nan; expected"),
    ],
)
def test_bad_zeta_and_kappa_are_refused(zeta, kappa, message):
    with pytest.raises(ValueError, match=message):
        ratio_cone(jnp.ones(3), zeta, kappa)
