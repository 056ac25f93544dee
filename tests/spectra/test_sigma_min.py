"""σ_min against references of 50 digits: honesty apart from accuracy, tightness and coverage."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from problems import PROBLEMS, references

import narrow_jax as nj
from narrow_jax.linalg import DEVICE, context
from narrow_jax.spectra import plans, result

mp.mp.dps = 60
UNIT = 2.0**-53
REFERENCES = references()
NAMES = list(PROBLEMS)
SAME_SHAPE = [name for name, p in PROBLEMS.items() if p.shape == (12, 48) and p.params["v"].shape == (4, 1)]
MEDIAN_ERROR = 10  # times u·κ, as the prototype measured


def operator(problem):
    make = nj.jacobian.standard if problem.standard else nj.jacobian.pairwise
    return make(problem.params, problem.x, problem.activation)


def truth(name):
    return mp.mpf(REFERENCES[name]["sigma_min"])


def condition(name):
    return float(mp.mpf(REFERENCES[name]["sigma_max"]) / max(truth(name), mp.mpf(10) ** -400))


@functools.cache
def solve(name, method):
    return nj.sigma_min(operator(PROBLEMS[name]), method)


def solve_jitted(name, method):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _jitted(operator(PROBLEMS[name]), method))


_jitted = jax.jit(nj.sigma_min, static_argnums=1)


def check(name, s, method):
    """One checker for every implementation."""
    sigma, kappa = truth(name), condition(name)
    rows, columns = PROBLEMS[name].shape
    value, lower, upper = (mp.mpf(float(number)) for number in (s.value, s.lower, s.upper))
    assert lower <= sigma <= upper, "honesty"
    if s.status == "not_converged":
        assert method == "gram", "only the Gram route may give up"
        assert kappa > 1e4
        return
    sigma_max = mp.mpf(REFERENCES[name]["sigma_max"])
    assert abs(value - sigma) <= 30 * max(rows, columns) * UNIT * sigma_max, "accuracy"
    assert abs(mp.mpf(float(s.sigma_max)) / sigma_max - 1) < 1e-6
    if kappa <= 1e13:
        assert abs(value - sigma) <= 100 * UNIT * kappa * sigma, "relative accuracy"
    if method != "gram" and kappa <= 1e10:
        assert s.status == "certified", "coverage"
        tolerance = 1e-13 * kappa if kappa <= 1e9 else 1e-2
        assert upper - lower <= tolerance * sigma, "tightness"
    if sigma == 0:
        assert s.status == "numerically_zero"


@pytest.mark.parametrize("method", ["auto", "gram", "qr", "dense"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_enclosure(name, method):
    check(name, solve(name, method), method)


@pytest.mark.parametrize("method", ["auto", "qr", "dense"])
def test_value_and_enclosure_compiled_on_the_host(method, monkeypatch):  # as for problems with many entries
    monkeypatch.setattr(context, "FEW", 0)
    for name in SAME_SHAPE[::3]:
        check(name, nj.sigma_min(operator(PROBLEMS[name]), method), method)


# many seconds of compilation each: "auto" holds both routes, and "gram" comes under vmap below
@pytest.mark.parametrize(("method", "activation"), [("auto", "tanh"), ("dense", "sin")])
def test_value_and_enclosure_jitted(method, activation):
    for name in SAME_SHAPE:
        if PROBLEMS[name].activation == activation:
            check(name, solve_jitted(name, method), method)


def test_the_table_spans_the_condition_numbers():
    known = sorted(condition(name) for name in NAMES)
    assert known[0] == pytest.approx(1.0)
    for exponent in range(1, 14):
        assert any(10**exponent <= kappa < 10 ** (exponent + 1.7) for kappa in known), exponent


def test_median_error():
    ratios = [
        float(abs(mp.mpf(float(solve(name, "auto").value)) / truth(name) - 1)) / (UNIT * condition(name))
        for name in NAMES
        if condition(name) <= 1e13
    ]
    assert np.median(ratios) <= MEDIAN_ERROR


def test_a_float32_gram_fails_the_same_checks():
    """Negative control: eigenvalues of a float32 Gram matrix are wrong where the table is hard."""
    failures = 0
    for name in SAME_SHAPE:
        if name.startswith("scale"):
            continue  # outside the range of float32
        J = np.asarray(operator(PROBLEMS[name]).dense(), dtype=np.float32)
        value = np.sqrt(max(float(np.linalg.eigvalsh(J @ J.T)[0]), 0.0))
        kappa = condition(name)
        failures += kappa <= 1e13 and abs(mp.mpf(value) - truth(name)) > 100 * UNIT * kappa * truth(name)
    assert failures > 20


def test_leaving_out_the_perturbation_is_noticed():
    """Mutation: with δ = 0 intervals miss the truth on problems where rounding of σ' dominates."""
    missed = 0
    for name in SAME_SHAPE:
        J = operator(PROBLEMS[name])
        with jax.enable_x64(True):
            exponent = int(J.evaluate().exponent)
            delta = float(np.ldexp(1.0, exponent)) * float(J.evaluate().gram(DEVICE).bounds.perturbation)
        s = nj.sigma_min(J)
        if s.status == "certified":
            missed += (
                not mp.mpf(float(s.lower)) + mp.mpf(delta)
                <= truth(name)
                <= mp.mpf(float(s.upper)) - mp.mpf(delta)
            )
    assert missed > 0


@pytest.mark.parametrize("multiplicity", [2, 3])
def test_multiple_smallest_singular_value(multiplicity):
    matrix = np.zeros((12, 48))
    np.fill_diagonal(matrix, [1.0] * (12 - multiplicity) + [2.0**-10] * multiplicity)
    s = nj.sigma_min(nj.jacobian.explicit(matrix))
    assert s.status == "certified"
    assert s.lower <= 2.0**-10 <= s.upper
    assert (s.upper - s.lower) * 2**10 <= 1e-13 * 2**10


def test_more_rows_than_columns():
    rng = np.random.RandomState(0)
    params = {"w": rng.standard_normal((2, 4)), "v": rng.standard_normal((2, 1))}
    J = nj.jacobian.pairwise(params, rng.standard_normal((9, 2)))
    s = nj.sigma_min(J)
    assert (s.status, s.method) == ("rank_deficient_by_shape", "shape")
    assert s.value == s.lower == s.upper == 0
    assert np.linalg.norm(J.rmv(s.vector)) < 1e-5
    assert "widen" in s.message


def test_explicit_matrix_with_known_spectrum():
    rng = np.random.RandomState(1)
    for kappa in (1e1, 1e4, 1e7):
        left, _ = np.linalg.qr(rng.standard_normal((12, 12)))
        right, _ = np.linalg.qr(rng.standard_normal((48, 12)))
        matrix = left @ np.diag(np.geomspace(1, 1 / kappa, 12)) @ right.T
        s = nj.sigma_min(nj.jacobian.explicit(matrix))
        assert s.status == "certified"
        assert s.value == pytest.approx(1 / kappa, rel=1e-14 * kappa)
        assert s.encloses == "the given matrix"


def test_float32_and_bfloat16_params_are_cast_first():
    problem = PROBLEMS["generic-tanh"]
    for dtype in (jnp.float32, jnp.bfloat16):
        params = {key: jnp.asarray(leaf, dtype) for key, leaf in problem.params.items()}
        x = jnp.asarray(problem.x, dtype)
        s = nj.sigma_min(nj.jacobian.pairwise(params, x))
        exact = {key: np.asarray(leaf, np.float64) for key, leaf in params.items()}
        t = nj.sigma_min(nj.jacobian.pairwise(exact, np.asarray(x, np.float64)))
        assert s.value == t.value
        assert s.value.dtype == np.float64
        assert s.status == "certified"


def test_float32_work_is_an_estimate():
    J = operator(PROBLEMS["generic-tanh"])
    s = nj.sigma_min(J, dtype="float32")
    assert s.status == "estimate"
    assert (s.lower, s.upper) == (0, np.inf)
    assert s.value == pytest.approx(nj.sigma_min(J).value, rel=1e-4)


def test_uncertified_value_is_the_certified_one():
    for name in ("generic-tanh", "nearly-duplicate-8", "graded-samples-11"):
        s, t = nj.sigma_min(operator(PROBLEMS[name]), certify=False), nj.sigma_min(operator(PROBLEMS[name]))
        assert s.value == pytest.approx(t.value, rel=100 * UNIT * condition(name))
        assert s.status == "estimate"
        assert s.lower == 0


def test_gradient_is_that_of_the_singular_value(x64):
    problem = PROBLEMS["generic-tanh"]

    def value(w):
        J = nj.jacobian.pairwise({**problem.params, "w": w}, problem.x)
        return nj.sigma_min(J, "gram", certify=False).value

    @jax.jit
    def slopes(w, direction):
        forward = jax.linearize(value, w)[1]
        return forward(direction), jax.linear_transpose(forward, w)(jnp.ones(()))[0]

    w = problem.params["w"]
    direction = np.random.RandomState(0).standard_normal(w.shape)
    slope, gradient = slopes(w, direction)
    step = 1e-6
    difference = (value(w + step * direction) - value(w - step * direction)) / (2 * step)
    assert slope == pytest.approx(float(difference), rel=1e-6)
    assert np.vdot(gradient, direction) == pytest.approx(float(slope), rel=1e-12)


def test_a_jitted_regulariser_in_float32():
    problem = PROBLEMS["generic-tanh"]
    params = {key: np.float32(leaf) for key, leaf in problem.params.items()}
    x = np.float32(problem.x)

    @jax.jit
    def step(params, x):
        return jax.grad(lambda p: nj.sigma_min(nj.jacobian.pairwise(p, x), certify=False).value)(params)

    gradient = step(params, x)
    assert gradient["w"].dtype == jnp.float32
    moved = {key: params[key] + np.float32(1e-2) * np.asarray(gradient[key]) for key in params}
    before, after = (nj.sigma_min(nj.jacobian.pairwise(p, x)) for p in (params, moved))
    assert after.lower > before.upper, "a step along the gradient raises σ_min, provably"


def test_vmap_takes_the_gram_route_and_says_where_it_fails(x64):
    names = [name for name in SAME_SHAPE if PROBLEMS[name].activation == "tanh"]
    batch = [PROBLEMS[name] for name in names]
    params = {key: np.stack([problem.params[key] for problem in batch]) for key in ("w", "v")}
    x = np.stack([problem.x for problem in batch])
    s = jax.jit(jax.vmap(lambda params, x: nj.sigma_min(nj.jacobian.pairwise(params, x))))(params, x)
    assert set(s.method) == {"gram"}
    for i, name in enumerate(names):
        check(name, jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], s), "gram")
    statuses = dict(zip(names, s.status, strict=True))
    assert [statuses[name] for name in ("generic-tanh", "nearly-duplicate-5")] == ["certified"] * 2
    assert [statuses[name] for name in ("graded-samples-13", "duplicate")] == [
        "not_converged",
        "numerically_zero",
    ]
    assert s.value[names.index("generic-tanh")] == pytest.approx(float(truth("generic-tanh")), rel=1e-13)


def test_names_are_unknown_while_traced():
    def f(J):
        return nj.sigma_min(J).status

    with pytest.raises(TypeError, match="compare status_code"):
        jax.jit(f)(operator(PROBLEMS["generic-tanh"]))


def test_repeated_calls_do_not_compile_again():
    solve_jitted("random-0", "auto")
    size = _jitted._cache_size()
    solve_jitted("random-1", "auto")
    assert _jitted._cache_size() == size


def compiled_programs(caplog, run):
    caplog.clear()
    with jax.log_compiles():
        run()
    return [record for record in caplog.records if "Compiling" in record.getMessage()]


def test_small_problems_on_the_host_compile_nothing(caplog):
    J = nj.jacobian.explicit(
        np.random.RandomState(0).standard_normal((5, 13))
    )  # of a shape that no other test has
    assert compiled_programs(caplog, lambda: nj.sigma_min(J)) == []
    assert compiled_programs(caplog, lambda: nj.singular_values(J)) == []
    assert compiled_programs(caplog, lambda: jax.jit(lambda J: nj.sigma_min(J).value)(J)) != []


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_uncertified_float32_lowers_for_accelerators(platform):
    J = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), operator(PROBLEMS["generic-tanh"]))

    def value(J):
        return nj.sigma_min(J, "gram", certify=False, dtype="float32").value

    exported = jax.export.export(jax.jit(value), platforms=[platform])(J)
    assert exported.platforms == (platform,)
    assert exported.out_avals[0].dtype == jnp.float32


def test_bad_input():
    J = operator(PROBLEMS["generic-tanh"])
    with pytest.raises(ValueError, match=r"unknown method 'gramm': did you mean 'gram'\?"):
        nj.sigma_min(J, method="gramm")
    with pytest.raises(TypeError, match="expected a Jacobian operator"):
        nj.sigma_min(np.eye(3))
    with pytest.raises(ValueError, match="memory_budget is 0; expected a positive number of bytes"):
        nj.sigma_min(J, memory_budget=0)
    needs = plans.of_sigma_min(plans.Sizes.of(J), "host", True)
    with pytest.raises(
        nj.MemoryBudgetError, match=rf"needs {needs['qr']:,} bytes .* 'gram' \({needs['gram']:,} bytes"
    ):
        nj.sigma_min(J, "qr", memory_budget=needs["qr"] - 1)
    assert nj.sigma_min(J, memory_budget=needs["auto"] - 1).method == "gram"
    with pytest.raises(nj.MemoryBudgetError, match="nothing fits below"):
        nj.sigma_min(J, memory_budget=10)
    assert nj.sigma_min(J, "gram", memory_budget=needs["gram"]).status == "certified"


def test_an_activation_without_derivative_error_gives_an_estimate():
    J = nj.jacobian.standard(PROBLEMS["standard"].params, PROBLEMS["standard"].x, "gelu")
    s = nj.sigma_min(J)
    assert s.status == "estimate"
    assert s.lower == 0
    assert s.value == pytest.approx(
        np.linalg.svd(np.asarray(J.dense(), np.float64), compute_uv=False)[-1], rel=1e-4
    )


def test_relu_is_certified_away_from_its_kink():
    problem = PROBLEMS["standard"]
    s = nj.sigma_min(nj.jacobian.standard(problem.params, problem.x, "relu"))
    w, v, x = (np.asarray(a, np.float64) for a in (problem.params["w"], problem.params["v"], problem.x))
    J = ((x @ w > 0) * v[:, 0])[:, None, :] * x[:, :, None]
    truth = np.linalg.svd(J.reshape(len(x), -1), compute_uv=False)[-1]
    assert s.status == "certified"
    assert s.lower <= truth <= s.upper


def test_every_status_says_what_to_do():
    names = [
        "certified",
        "numerically_zero",
        "rank_deficient_by_shape",
        "estimate",
        "not_converged",
    ]
    assert len(result.Status) == len(names)
    for code, name in enumerate(names):
        s = result.SigmaMin(0.0, 0.0, 0.0, 1.0, np.ones(1), np.int32(code), np.int32(0), "x")
        assert s.status == name
        assert len(s.message) > 40
        assert s.message == result.Status(code).message
        assert s.certified == (name == "certified")


@pytest.mark.parametrize("traced", [False, True])
def test_many_more_rows_than_columns_take_squares_of_the_smaller_side(traced, x64):
    """A Gram matrix of the rows would take 80 GB."""
    matrix = np.random.default_rng(0).normal(size=(100_000, 3)) * [1.0, 1e-3, 0.0]
    J = nj.jacobian.explicit(matrix)
    s = (jax.jit(nj.sigma_min) if traced else nj.sigma_min)(J)
    expected = np.linalg.svd(matrix, compute_uv=False)
    assert traced or s.status == "rank_deficient_by_shape"
    assert (float(s.value), float(s.lower), float(s.upper)) == (0, 0, 0)
    assert float(s.sigma_max) == pytest.approx(expected[0], rel=1e-12)
    assert np.linalg.norm(s.vector) == pytest.approx(1, rel=1e-12)
    assert np.linalg.norm(np.asarray(s.vector) @ matrix) < 1e-13 * expected[0]
    values = nj.singular_values(J)
    assert (np.abs(values.values - expected) <= values.error).all()
    assert values.error.max() < 1e-12 * expected[0]
    assert np.isinf(nj.condition_number(J))
    assert float(nj.effective_rank(J)) == pytest.approx(1 + 1e-3, rel=1e-2)


def test_the_budget_of_more_rows_than_columns_is_that_of_the_smaller_side():
    J = nj.jacobian.explicit(np.random.default_rng(0).normal(size=(2000, 4)))
    assert nj.sigma_min(J, memory_budget=500_000).value == 0
    assert nj.singular_values(J, memory_budget=500_000).values.shape == (4,)
    with pytest.raises(nj.MemoryBudgetError, match="nothing fits below"):
        nj.sigma_min(J, memory_budget=100_000)
