"""What a TPU is given, float32 by the factorisations for it, run on the CPU: against references of 50 digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import PROBLEMS, references

import narrow_jax as nj
from narrow_jax.linalg import TPU
from narrow_jax.spectra import all_values, derivatives, smallest_value, tracking
from narrow_jax.spectra.result import Status

REFERENCES = references()
SINGLE = jnp.dtype("float32")
UNIT = 2.0**-24
WITHIN = [name for name in PROBLEMS if not name.startswith("scale-")]  # of the range of float32


def operator(problem):
    make = nj.jacobian.standard if problem.standard else nj.jacobian.pairwise
    params = jax.tree.map(np.float32, problem.params)
    return make(params, np.float32(problem.x), problem.activation)


def drawn(n=150, d=30, m=20):
    rng = np.random.default_rng(0)
    return {
        "w": np.float32(rng.normal(size=(d, m)) / d**0.5),
        "v": np.float32(rng.normal(size=(m // 2, 1))),
    }, np.float32(rng.normal(size=(n, d)))


def estimate(J, method="auto"):
    program = smallest_value._program if J.shape[0] <= J.shape[1] else None
    if program is None:
        return smallest_value._deficient(TPU, "float32", SINGLE)(J)[0]
    return program(method, False, "float32", SINGLE, TPU)(J)[0]


@pytest.mark.parametrize("method", ["auto", "qr", "dense"])
@pytest.mark.parametrize("name", WITHIN)
def test_accurate_to_rounding(name, method):
    problem = PROBLEMS[name]
    rows, columns = problem.shape
    if rows > columns:
        pytest.skip("more rows than columns: 0 by counting, which another test shows")
    s = estimate(operator(problem), method)
    error = abs(float(s.value) - float(REFERENCES[name]["sigma_min"]))
    # the data are rounded to float32 as well, which moves σ_min by as much
    assert error <= 4 * UNIT * columns**0.5 * float(s.sigma_max)
    assert s.status in ("estimate", "numerically_zero")
    assert s.value.dtype == s.vector.dtype == jnp.float32
    assert (s.lower, s.upper) == (0, jnp.inf)


@pytest.mark.parametrize("name", WITHIN)
def test_gram_says_where_it_cannot_tell(name):
    problem = PROBLEMS[name]
    rows, columns = problem.shape
    if rows > columns:
        pytest.skip("more rows than columns: 0 by counting, which another test shows")
    s = estimate(operator(problem), "gram")
    error = abs(float(s.value) - float(REFERENCES[name]["sigma_min"]))
    accurate = error <= 4 * UNIT * columns**0.5 * float(s.sigma_max)
    assert accurate or s.status_code == Status.NOT_CONVERGED


@pytest.mark.parametrize("method", ["auto", "dense"])
def test_more_rows_than_a_block(method):
    J = nj.jacobian.pairwise(*drawn())
    exact, s = nj.sigma_min(J), estimate(J, method)
    assert float(s.value) == pytest.approx(exact.value, abs=4 * UNIT * J.shape[1] ** 0.5 * exact.sigma_max)
    assert float(s.sigma_max) == pytest.approx(exact.sigma_max, rel=1e-5)


def test_more_rows_than_columns():
    params, x = drawn(m=2)
    J = nj.jacobian.pairwise(params, x)
    exact, s = nj.sigma_min(J), estimate(J)
    assert (s.status, float(s.value), float(s.upper)) == ("rank_deficient_by_shape", 0, 0)
    assert float(s.sigma_max) == pytest.approx(exact.sigma_max, rel=1e-5)
    assert jnp.linalg.norm(s.vector) == pytest.approx(1, abs=1e-6)
    assert jnp.linalg.norm(J.rmv(s.vector)) <= 30 * UNIT * exact.sigma_max


@pytest.mark.parametrize("width", [2, 20], ids=["tall", "wide"])
def test_all_singular_values(width):
    J = nj.jacobian.pairwise(*drawn(m=width))
    exact = nj.singular_values(J)
    s, _, u, p = all_values._program(SINGLE, TPU, "float32", proven=False)(J)
    allowed = 4 * UNIT * max(J.shape) ** 0.5 * exact.values[0]
    np.testing.assert_allclose(s.values, exact.values, rtol=0, atol=allowed)
    assert np.all(np.isinf(s.error))
    assert int(s.rank) == 0
    np.testing.assert_allclose(u @ J.dense() @ p.T, np.diag(exact.values), rtol=0, atol=100 * allowed)


def test_second_derivatives_take_the_same_factorisations():
    J = nj.jacobian.pairwise(*drawn(20, 8, 6))
    exact = nj.sigma_min(J)
    found, wanted = (
        jax.tree.map(np.asarray, program(J, np.float32(exact.vector)))
        for program in (derivatives._complement(SINGLE, TPU, "float32"), derivatives._complement(SINGLE))
    )
    whole, reference = ((basis * inverse) @ basis.T for basis, inverse in (found, wanted))
    np.testing.assert_allclose(whole, reference, rtol=0, atol=1e-2 * np.abs(reference).max())


def test_the_monitor():
    params, x = drawn()
    J = nj.jacobian.pairwise(params, x)
    program = tracking._program(SINGLE, TPU, "float32")
    state, value, _, _ = program(tracking.start(*J.shape), J)
    exact = nj.sigma_min(J).value
    assert int(state.refreshes) == 1
    assert float(value) == pytest.approx(exact, rel=1e-3)
    moved = nj.jacobian.pairwise(jax.tree.map(lambda leaf: np.float32(1.001) * leaf, params), x)
    state, value, _, _ = program(state, moved)
    assert int(state.refreshes) == 1
    assert float(value) == pytest.approx(nj.sigma_min(moved).value, rel=1e-2)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("method", ["auto", "gram", "qr", "dense"])
def test_every_method_lowers_for_accelerators(platform, method):
    J = nj.jacobian.pairwise(*drawn(5, 4, 6))
    exported = jax.export.export(jax.jit(lambda J: nj.sigma_min(J, method).value), platforms=[platform])(J)
    assert exported.platforms == (platform,)
    assert ("f64" in exported.mlir_module()) == (platform == "cuda")
