"""First, second and third derivatives of everything spectral, against differentiated SVDs and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj

EXACT, DIFFERENCE = 1e-9, 1e-5  # relative: against the other formula, and against differences of step 1e-4


def net(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


V, X = draw(3, 1), draw(4, 3)


def wide(w):
    return {"w": w, "v": jnp.concatenate([V, -V])}


# (operator of θ, the matrix written out, θ)
PROBLEMS = {
    "explicit, n < p": (nj.jacobian.explicit, lambda a: a, draw(3, 5)),
    "explicit, n = p": (nj.jacobian.explicit, lambda a: a, draw(3, 3)),
    "explicit, n > p": (nj.jacobian.explicit, lambda a: a, draw(5, 3)),
    "pairwise": (
        lambda w: nj.jacobian.pairwise({"w": w, "v": V}, X, "softplus"),
        lambda w: written(w, jax.nn.sigmoid(X @ w)),
        draw(3, 6),
    ),
    "autodiff": (
        lambda w: nj.jacobian.autodiff(net, wide(w), X, wrt="w"),
        lambda w: written(w, 1 - jnp.tanh(X @ w) ** 2),
        draw(3, 6),
    ),
}


def written(w, slopes):
    d = slopes * jnp.concatenate([V, -V])[:, 0][None, :]
    return (X[:, :, None] * d[:, None, :]).reshape(len(X), -1)


def numbers(J):
    """All that has derivatives, of all functions at once."""
    s, values = nj.sigma_min(J, "gram", certify=False), nj.singular_values(J).values
    found = {"values": values, "rank": nj.effective_rank(J), "sigma_max": s.sigma_max}
    if J.shape[0] <= J.shape[1]:
        found |= {"value": s.value, "vector": s.vector**2}
    return found


def reference(matrix):
    u, values, _ = jnp.linalg.svd(matrix, full_matrices=False)
    p = values / jnp.sum(values)
    rank = jnp.exp(-jnp.sum(p * jnp.log(p)))
    found = {"values": values, "rank": rank, "sigma_max": values[0]}
    if matrix.shape[0] <= matrix.shape[1]:
        found |= {"value": values[-1], "vector": u[:, -1] ** 2}
    return found


def weighted(found):
    """All in one number, by weights that tell the entries apart."""
    entries = jnp.concatenate([jnp.ravel(found[name]) for name in sorted(found)])
    return jnp.sum(jnp.cos(jnp.arange(1.0, 1 + entries.size)) * entries)


def twice(f):
    """(θ, direction) ↦ gradient, and second derivatives along the direction: forward over reverse."""
    return jax.jit(lambda theta, v: jax.jvp(jax.grad(f), (theta,), (v,)))


def close(found, expected, tolerance):
    np.testing.assert_allclose(found, expected, atol=tolerance * np.max(np.abs(expected)))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_first_and_second_derivatives(problem, x64):
    theta = jnp.asarray(PROBLEMS[problem][2])
    direction = jnp.asarray(np.random.default_rng(1).normal(size=theta.shape))
    operator, matrix, _ = PROBLEMS[problem]
    gradient, curvature = twice(lambda theta: weighted(numbers(operator(theta))))(theta, direction)
    g, c = twice(lambda theta: weighted(reference(matrix(theta))))(theta, direction)
    close(gradient, g, EXACT)
    close(curvature, c, 1e3 * EXACT)


@pytest.mark.parametrize("problem", ["explicit, n < p", "explicit, n > p"])
def test_third_derivatives_and_reverse_over_reverse(problem, x64):
    theta = jnp.asarray(PROBLEMS[problem][2])
    direction = jnp.asarray(np.random.default_rng(1).normal(size=theta.shape))
    operator, step = PROBLEMS[problem][0], 1e-4

    def value(theta):
        return jnp.sum(nj.singular_values(operator(theta)).values ** 3) + nj.effective_rank(operator(theta))

    @jax.jit
    def derivatives(theta):
        def along(theta):
            return jnp.vdot(jax.grad(value)(theta), direction)

        return jax.grad(along)(theta), jax.jvp(jax.grad(along), (theta,), (direction,))[1]

    up, down = derivatives(theta + step * direction), derivatives(theta - step * direction)
    gradients = [jax.jit(jax.grad(value))(theta + s * direction) for s in (step, -step)]
    second, third = derivatives(theta)
    close(second, (gradients[0] - gradients[1]) / (2 * step), DIFFERENCE)
    close(third, (up[0] - down[0]) / (2 * step), DIFFERENCE)


def test_hessian_of_the_condition_number_is_symmetric_and_that_of_the_svd(x64):
    theta = jnp.asarray(PROBLEMS["explicit, n < p"][2])

    def mine(a):
        return nj.condition_number(nj.jacobian.explicit(a))

    def svd(a):
        values = jnp.linalg.svd(a, full_matrices=False, compute_uv=False)
        return values[0] / values[-1]

    found = jax.jit(jax.hessian(mine))(theta).reshape(15, 15)
    expected = jax.hessian(svd)(theta).reshape(15, 15)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.max(np.abs(expected)))
    np.testing.assert_allclose(found, found.T, atol=1e-12 * np.max(np.abs(found)))


def test_holding_the_vectors_fixed_is_noticed(x64):
    """Negative control: the rule that held once gives 0 on an explicit matrix."""
    theta = jnp.asarray(PROBLEMS["explicit, n < p"][2])
    u, _, vt = np.linalg.svd(theta, full_matrices=False)
    fixed = jax.hessian(lambda a: jnp.vdot(u[:, -1], a @ vt[-1]))(theta)
    assert np.all(fixed == 0)


def test_bounds_of_sigma_min_move_with_the_value(x64):
    theta = jnp.asarray(PROBLEMS["explicit, n < p"][2])

    @jax.jit
    def gradients(a):
        return jax.jacrev(
            lambda a: (lambda s: (s.value, s.lower, s.upper))(nj.sigma_min(nj.jacobian.explicit(a), "gram"))
        )(a)

    value, lower, upper = gradients(theta)
    np.testing.assert_array_equal(value, lower)
    np.testing.assert_array_equal(value, upper)


def test_second_derivatives_in_float32():
    theta = jnp.asarray(PROBLEMS["explicit, n < p"][2], jnp.float32)

    def curvature(f, theta):
        return jax.jit(lambda a: jax.jvp(jax.grad(f), (a,), (jnp.ones_like(a),))[1])(theta)

    found = curvature(lambda a: nj.singular_values(nj.jacobian.explicit(a)).values[-1], theta)
    with jax.enable_x64(True):
        expected = curvature(lambda a: jnp.linalg.svd(a, full_matrices=False)[1][-1], theta.astype(float))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.max(np.abs(expected)))


@pytest.mark.parametrize("spread", [0.0, 1e-16])
def test_where_singular_values_coincide_second_derivatives_are_nan(spread, x64):
    theta = jnp.diag(jnp.array([1.0, 1.0 + spread, 2.0]))
    f = jax.jit(jax.hessian(lambda a: nj.sigma_min(nj.jacobian.explicit(a), "dense", certify=False).value))
    assert np.all(np.isnan(f(theta)))


REFUSED = {
    "error": lambda a: jnp.sum(nj.singular_values(nj.jacobian.explicit(a)).error),
    "perturbation": lambda a: nj.jacobian.explicit(a).perturbation(),
    "gram_error": lambda a: nj.jacobian.explicit(a).gram_error(),
}


@pytest.mark.parametrize("differentiate", [jax.grad, jax.jacfwd, lambda f: jax.grad(jax.jit(f))])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_derivative_says_so(name, differentiate):
    with pytest.raises(TypeError, match=r"no derivative; expected .*jax.lax.stop_gradient\(J\)"):
        differentiate(REFUSED[name])(jnp.ones((2, 3)))


def test_bounds_beside_a_loss_are_no_obstacle():
    def loss(a):
        s = nj.singular_values(nj.jacobian.explicit(a))
        return jnp.sum(s.values), s

    (_, s), slope = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(draw(2, 3), jnp.float32))
    assert np.all(np.isfinite(slope))
    assert np.all(np.isfinite(s.error))
    assert int(s.rank) == 2


def test_rank_deficient_by_shape_has_no_finite_slope_of_the_condition_number(x64):
    theta = jnp.asarray(PROBLEMS["explicit, n > p"][2])
    slope = jax.jit(jax.grad(lambda a: nj.condition_number(nj.jacobian.explicit(a))))(theta)
    assert not np.any(np.isfinite(slope[slope != 0]))
    assert np.any(slope != 0)


@pytest.mark.parametrize("name", ["pairwise", "standard", "autodiff", "explicit", "pairwise_mlp"])
def test_data_of_numpy_are_differentiated_without_a_warning(name):
    """float64 with x64 off, as NumPy makes it: JAX would say that it is cut down to float32."""
    rng = np.random.default_rng(0)
    w, v, x = rng.normal(size=(4, 6)), rng.normal(size=(6, 1)), rng.normal(size=(5, 4))
    half = {"w1": rng.normal(size=(4, 5)), "w2": rng.normal(size=(5, 3))}
    operator = {
        "pairwise": lambda x: nj.jacobian.pairwise({"w": w, "v": v[:3]}, x),
        "standard": lambda x: nj.jacobian.standard({"w": w, "v": v}, x),
        "autodiff": lambda x: nj.jacobian.autodiff(
            lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], {"w": w, "v": v}, x, wrt="w"
        ),
        "explicit": nj.jacobian.explicit,
        "pairwise_mlp": lambda x: nj.jacobian.pairwise_mlp({"plus": half, "minus": half, "v": v[:3]}, x),
    }[name]

    def value(x):
        return nj.sigma_min(operator(x)).value

    def values(x):
        return nj.singular_values(operator(x)).values.sum()

    def gram(x):
        return operator(x).gram().sum()

    for f in (value, values, gram):
        assert np.isfinite(jax.jit(jax.grad(f))(x)).all()  # warnings are errors here
    assert np.isfinite(jax.grad(value)(x)).all()
