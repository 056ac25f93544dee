"""All singular values against 140-digit eigenvalues, and the numbers that follow from them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from make_problems import gram
from problems import PROBLEMS

import narrow_jax as nj

UNIT = 2.0**-53
NAMES = [
    "generic-tanh",
    "mirrored-softplus",
    "graded-inputs-8-sin",
    "graded-samples-9",
    "graded-samples-14",
    "nearly-duplicate-11",
    "duplicate",
    "dead-units",
    "saturated",
    "scale-cross",
    "two-outputs",
    "standard",
    "n-1",
]


def operator(problem):
    make = nj.jacobian.standard if problem.standard else nj.jacobian.pairwise
    return make(problem.params, problem.x, problem.activation)


@functools.cache
def truth(name, dtype=np.float64):
    """Descending, from the eigenvalues of the exact Gram matrix; a null value of 140 digits comes out below 1e-60."""
    problem = PROBLEMS[name]
    params, x = jax.tree.map(lambda a: a.astype(dtype).astype(np.float64), (problem.params, problem.x))
    with mp.workdps(140):
        values = mp.eigsy(gram(dataclasses.replace(problem, params=params, x=x)), eigvals_only=True)
        return [mp.sqrt(max(value, 0)) for value in reversed(list(values))]


def check(s, exact):
    assert len(s.values) == len(exact)
    assert np.all(np.diff(s.values) <= 0)
    for value, error, true in zip(s.values, s.error, exact, strict=True):
        assert abs(mp.mpf(float(value)) - true) <= mp.mpf(float(error))


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_within_its_error(name):
    s, exact = nj.singular_values(operator(PROBLEMS[name])), truth(name)
    check(s, exact)
    kappa, rows = float(exact[0] / max(exact[-1], mp.mpf(10) ** -60)), len(exact)
    assert np.all(s.error <= np.sqrt(100 * rows * UNIT) * float(exact[0])), "Weyl's bound"
    if kappa <= 1e10:
        assert np.all(s.error <= (100 + 50 * rows) * UNIT * kappa * s.values), "Ostrowski's bound"
    rank = sum(value > exact[0] * mp.mpf(10) ** -40 for value in exact)
    certain = sum(value > 1e-6 * exact[0] for value in exact)
    assert certain <= s.rank <= rank


@pytest.mark.parametrize("shape", [(9, 4), (4, 4), (1, 3), (3, 1)])
def test_tall_and_square_matrices(shape):
    matrix = np.random.default_rng(0).standard_normal(shape) * 10.0 ** -np.arange(shape[1])
    s = nj.singular_values(nj.jacobian.explicit(matrix))
    with mp.workdps(60):
        exact = mp.matrix(matrix.tolist())
        small = exact.T * exact if shape[0] > shape[1] else exact * exact.T
        check(s, [mp.sqrt(value) for value in reversed(list(mp.eigsy(small, eigvals_only=True)))])
    assert s.rank == min(shape)
    assert s.encloses == "the given matrix"


def test_zero_matrix_has_no_proven_rank():
    s = nj.singular_values(nj.jacobian.explicit(np.zeros((4, 4))))
    assert np.all(s.values <= s.error)
    assert s.rank == 0


def test_a_null_value_does_not_cost_the_rank_of_the_others():
    """One duplicate row of 60: 59 values are proven, the smallest of them 1e-9 of the largest."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 90)) * 10.0 ** -np.linspace(0, 8, 60)[:, None]
    for row in (1, 59):
        matrix[row] = matrix[0] if row == 1 else matrix[58]
        for operand in (matrix, matrix.T):
            s = nj.singular_values(nj.jacobian.explicit(operand))
            assert s.rank == 60 - (1 if row == 1 else 2)
            assert np.all(s.error <= 1e-4 * s.values + 1e-12)
    exact = np.linalg.svd(matrix, compute_uv=False)
    assert np.all(np.abs(s.values - exact) <= s.error + 60 * UNIT * exact[0])


TRACED = ["generic-tanh", "nearly-duplicate-11"]


def test_jit_gives_float32_where_x64_is_off():
    solve = jax.jit(nj.singular_values)
    for name in TRACED:
        s = jax.tree.map(np.asarray, solve(operator(PROBLEMS[name])))
        assert s.values.dtype == s.error.dtype == jnp.float32
        check(s, truth(name, np.float32))  # what jit makes of its arguments


def test_vmap_over_weights_and_data_gives_float64_where_x64_is_on(x64):
    params = {key: np.stack([PROBLEMS[name].params[key] for name in TRACED]) for key in ("w", "v")}
    x = np.stack([PROBLEMS[name].x for name in TRACED])
    s = jax.jit(jax.vmap(lambda params, x: nj.singular_values(nj.jacobian.pairwise(params, x))))(params, x)
    assert s.values.dtype == s.error.dtype == jnp.float64
    for i, name in enumerate(TRACED):
        check(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], s), truth(name))


def test_smallest_agrees_with_sigma_min():
    J = operator(PROBLEMS["graded-samples-9"])
    s, smallest = nj.singular_values(J), nj.sigma_min(J)
    assert abs(s.values[-1] - smallest.value) <= s.error[-1] + (smallest.upper - smallest.lower)


def test_condition_number():
    J = operator(PROBLEMS["graded-samples-5"])
    exact = truth("graded-samples-5")
    assert nj.condition_number(J) == pytest.approx(float(exact[0] / exact[-1]), rel=1e-6)
    assert nj.condition_number(operator(PROBLEMS["duplicate"])) == np.inf
    assert nj.condition_number(nj.jacobian.explicit(np.ones((9, 4)))) == np.inf


def test_condition_number_has_a_derivative(x64):
    def kappa(t):
        return nj.condition_number(nj.jacobian.explicit(jnp.diag(jnp.stack([3.0 + t, 2.0 - t]))))

    # d/dt (3 + t)/(2 − t) = 5/4 at 0
    assert float(jax.jit(jax.grad(kappa))(jnp.zeros(()))) == pytest.approx(1.25, rel=1e-9)


effective_rank = jax.jit(nj.effective_rank)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [5.0, 3.0, 1.0, 0.5]])
def test_effective_rank_is_the_exponential_of_the_entropy(values):
    p = np.array(values) / np.sum(values)
    entropy = -sum(t * np.log(t) for t in p if t > 0)
    found = nj.effective_rank(nj.jacobian.explicit(np.diag(values)))
    assert float(found) == pytest.approx(np.exp(entropy), rel=1e-12)
    with jax.enable_x64(True):
        traced = effective_rank(nj.jacobian.explicit(np.diag(values)))
    assert float(traced) == pytest.approx(np.exp(entropy), rel=1e-12)


def test_bad_input():
    with pytest.raises(TypeError, match="J is a ndarray; expected a Jacobian operator"):
        nj.singular_values(np.eye(3))
    with pytest.raises(nj.MemoryBudgetError, match=r"singular_values with 'qr' needs [\d,]+ bytes"):
        nj.singular_values(operator(PROBLEMS["generic-tanh"]), memory_budget=1000)


def test_plot_of_the_spectrum(tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'plots' is not installed")
    J = operator(PROBLEMS["generic-tanh"])
    nj.plots.spectrum(nj.singular_values(J), nj.sigma_min(J)).figure.savefig(tmp_path / "spectrum.png")
    assert (tmp_path / "spectrum.png").stat().st_size > 10_000
