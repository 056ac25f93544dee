"""What computes with spectra, under every transformation, with x64 off and on, against the eager result."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import narrow_jax as nj

ROWS = 3
ROUNDING = {jnp.float32: 2e-5, jnp.float64: 1e-9}  # of the casts of arguments, and of another order of sums


def net(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def differentiated(mode, budget):
    def operator(w, v, x):
        params = {"w": w, "v": jnp.concatenate([v, -v])}
        return nj.jacobian.autodiff(net, params, x, wrt="w", mode=mode, memory_budget=budget)

    return operator


STORED, RECOMPUTED = 1 << 30, 2600
OPERATORS = {
    "pairwise": lambda w, v, x: nj.jacobian.pairwise({"w": w, "v": v}, x),
    "standard": lambda w, v, x: nj.jacobian.standard({"w": w, "v": jnp.concatenate([v, 2 * v])}, x),
    "explicit": lambda w, v, x: nj.jacobian.explicit(w[:ROWS] + v[0, 0] + x[0, 0]),
    "reverse": differentiated("reverse", STORED),
    "forward": differentiated("forward", STORED),
    "reverse, recomputed": differentiated("reverse", RECOMPUTED),
    "forward, recomputed": differentiated("forward", RECOMPUTED),
}

NUMBERS = {
    "auto": lambda J: nj.sigma_min(J).value,
    "gram": lambda J: nj.sigma_min(J, "gram", certify=False).value,
    "qr": lambda J: nj.sigma_min(J, "qr", certify=False).value,
    "dense": lambda J: nj.sigma_min(J, "dense", certify=False).value,
    "lower": lambda J: nj.sigma_min(J, "gram").lower,
    "sigma_max": lambda J: nj.sigma_min(J, "gram", certify=False).sigma_max,
    "singular_values": lambda J: nj.singular_values(J).values[1],
    "condition_number": nj.condition_number,
    "effective_rank": nj.effective_rank,
    "products": lambda J: jnp.sum(J.mv(J.rmv(jnp.ones(ROWS, J.dtype)))) + jnp.sum(J.gram()),
    "dense matrix": lambda J: jnp.sum(J.dense() ** 3),
    "bounds": lambda J: J.gram_error() + J.perturbation(),
}


def first(arguments):
    return tuple(leaf[0] for leaf in arguments)


def total(f):
    return lambda *arguments: jnp.sum(jax.vmap(f)(*arguments))


VALUES = {
    "jit": lambda f: lambda *a: jax.jit(f)(*first(a))[None],
    "jit of vmap": lambda f: jax.jit(jax.vmap(f)),
    "vmap": jax.vmap,
    "vmap of jit": lambda f: jax.vmap(jax.jit(f)),
    "vmap of jit of vmap": lambda f: lambda *a: jax.vmap(jax.jit(jax.vmap(f)))(*(b[None] for b in a))[0],
    "map in batches": lambda f: lambda *a: jax.lax.map(lambda b: f(*b), a, batch_size=2),
    "scan": lambda f: lambda *a: jax.lax.scan(lambda c, b: (c, f(*b)), 0, a)[1],
    "vmap of scan": lambda f: lambda *a: jax.vmap(lambda *a: VALUES["scan"](f)(*(b[None] for b in a))[0])(*a),
}
GRADIENTS = {
    "jit of grad": lambda f: lambda *a: jax.jit(jax.grad(f))(*first(a))[None],
    "grad of jit": lambda f: lambda *a: jax.grad(jax.jit(f))(*first(a))[None],
    "jit of grad of vmap": lambda f: jax.jit(jax.grad(total(f))),
    "vmap of jit of grad": lambda f: jax.vmap(jax.jit(jax.grad(f))),
    "grad of vmap of jit": lambda f: jax.grad(total(jax.jit(f))),
    "grad of map in batches": lambda f: jax.grad(lambda *a: jnp.sum(VALUES["map in batches"](f)(*a))),
}


def draw():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(2, *shape)), float) for shape in ((4, 6), (3, 1), (ROWS, 4)))


@functools.cache
def eager(operator, number, dtype):
    """From NumPy's float64, on the host."""
    return np.array([float(of(operator, number)(*map(np.asarray, first(a)))) for a in batches(dtype)])


def batches(dtype):
    arguments = draw()
    return [tuple(leaf[i : i + 1] for leaf in arguments) for i in range(2)]


def of(operator, number):
    return lambda *arguments: NUMBERS[number](OPERATORS[operator](*arguments))


@functools.cache
def slopes(operator, number, dtype):
    """The derivative along the weights, from eager differences of two in float64."""
    step, result = 1e-6, []
    direction = np.random.default_rng(1).normal(size=(4, 6))
    with jax.enable_x64(True):
        for w, v, x in (tuple(np.asarray(leaf, np.float64) for leaf in first(a)) for a in batches(dtype)):
            up, down = (float(of(operator, number)(w + s * direction, v, x)) for s in (step, -step))
            result.append((up - down) / (2 * step))
    return np.array(result), direction


def check_values(operator, number, transformation):
    dtype = jnp.zeros((), float).dtype.type
    found = np.asarray(VALUES[transformation](of(operator, number))(*draw()))
    expected = eager(operator, number, dtype)[: len(found)]
    tolerance = ROUNDING[dtype] * (10 if number == "condition_number" else 1)
    if number == "bounds":  # of this program's own rounding: of the same size only
        assert np.all((found > 0.01 * expected) & (found < 100 * expected))
    else:
        np.testing.assert_allclose(found, expected, rtol=tolerance)


def check_gradients(operator, number, transformation):
    dtype = jnp.zeros((), float).dtype.type
    found = np.asarray(GRADIENTS[transformation](of(operator, number))(*draw()))
    expected, direction = slopes(operator, number, dtype)
    along = np.sum(np.float64(found) * direction, axis=(1, 2))
    size = np.linalg.norm(found) * np.linalg.norm(direction)
    np.testing.assert_allclose(along, expected[: len(found)], rtol=1e-6, atol=1e-4 * size / 30)


CASES = [("explicit", number, "vmap of jit") for number in NUMBERS]
CASES += [("explicit", "singular_values", transformation) for transformation in VALUES]
CASES += [("explicit", "gram", name) for name in ("jit of vmap", "map in batches", "scan", "vmap of scan")]
CASES += [("pairwise", "auto", name) for name in ("jit of vmap", "scan")]
CASES += [("forward, recomputed", "gram", "vmap of jit"), ("reverse", "gram", "scan")]
CASES += [(name, number, "vmap of jit") for name in OPERATORS for number in ("singular_values", "products")]


@pytest.mark.parametrize(("operator", "number", "transformation"), dict.fromkeys(CASES))
def test_values(operator, number, transformation):
    check_values(operator, number, transformation)


@pytest.mark.parametrize(("operator", "number"), [("reverse", "gram"), ("pairwise", "effective_rank")])
def test_values_in_float64(operator, number, x64):
    check_values(operator, number, "vmap of jit")


SLOPES = [("explicit", number, "vmap of jit of grad") for number in NUMBERS if number != "bounds"]
SLOPES += [("explicit", "singular_values", transformation) for transformation in GRADIENTS]
SLOPES += [("explicit", "gram", name) for name in ("grad of jit", "jit of grad of vmap")]
SLOPES += [(name, "effective_rank", "jit of grad of vmap") for name in OPERATORS]


@pytest.mark.parametrize(("operator", "number", "transformation"), dict.fromkeys(SLOPES))
def test_gradients(operator, number, transformation):
    check_gradients(operator, number, transformation)


@pytest.mark.parametrize(("operator", "number"), [("forward", "singular_values"), ("standard", "products")])
def test_gradients_in_float64(operator, number, x64):
    check_gradients(operator, number, "grad of vmap of jit")


MONITORS = {
    "pairwise": nj.jacobian.pairwise,
    "reverse": lambda params, x: OPERATORS["reverse"](params["w"], params["v"], x),
    "forward": lambda params, x: OPERATORS["forward"](params["w"], params["v"], x),
}


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("name", MONITORS)
def test_monitor_in_a_sweep(name, x64):
    """Records under vmap, in a scan, with x64 off and on, what NumPy's SVD gives."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(x64):
        data = jnp.asarray(rng.normal(size=(5, 4)), float), jnp.asarray(rng.normal(size=(5, 1)), float)

        def setup(seed):
            params = nj.initializers.mirrored_lecun(
                jax.random.key(seed), inputs=4, width=6, dtype=data[0].dtype
            )
            return params, optax.sgd(0.01)

        swept = nj.sweep(
            nj.models.pairwise_apply,
            setup,
            data,
            grid={"seed": [0, 1]},
            steps=2,
            monitors=[nj.monitors.SigmaMinMonitor(MONITORS[name])],
        )
        for run in range(2):
            params = {key: np.asarray(leaf[run], np.float64) for key, leaf in swept.params.items()}
            exact = nj.sigma_min(nj.jacobian.pairwise(params, np.asarray(data[0], np.float64)))
            assert swept.history["sigma_min"][run, -1] == pytest.approx(float(exact.value), rel=1e-3)


def test_numbers_that_rest_on_a_status_are_not_wrong_in_silence(x64):
    """∞ where rank-deficient, NaN where the Gram matrix under vmap resolves nothing, right elsewhere."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, 6)))[0] for size in (6, 9))
    known = [1e0, 1e3, 1e6, 1e9, 1e12]
    matrices = [left @ np.diag(np.geomspace(1, 1 / kappa, 6)) @ right.T for kappa in known]
    twins = rng.normal(size=(6, 9))
    twins[1] = twins[0]
    batch = np.stack([*matrices, np.zeros((6, 9)), twins])
    eagerly = [nj.condition_number(nj.jacobian.explicit(matrix)) for matrix in batch]
    np.testing.assert_allclose(eagerly, [*known, np.inf, np.inf], rtol=1e-3)
    found = np.asarray(jax.vmap(lambda a: nj.condition_number(nj.jacobian.explicit(a)))(batch))
    np.testing.assert_allclose(found[:3], known[:3], rtol=1e-6)
    for value, true in zip(found[3:], eagerly[3:], strict=True):
        assert not np.isfinite(value) or value == pytest.approx(true, rel=1e-3)
    assert found[5] == np.inf


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e-200, 1e200, 1e300])
def test_numbers_without_scale_survive_it_or_are_nan(scale):
    """Where a singular value leaves the range of numbers, no condition number or rank is made up from the rest."""
    matrix = np.diag([4.0, 2.0, 1.0]) * scale
    J = nj.jacobian.explicit(matrix)
    p = np.array([4, 2, 1]) / 7
    for found, true in (
        (nj.condition_number(J), 4.0),
        (nj.effective_rank(J), np.exp(-np.sum(p * np.log(p)))),
    ):
        assert np.isnan(found) or found == pytest.approx(true, rel=1e-12)
        if 1e-290 < scale < 1e290:
            assert not np.isnan(found)
    w, v = jnp.ones((3, 2), jnp.float32) * jnp.array([[1.0], [2.0], [3.0]]), jnp.ones((2, 1), jnp.float32)
    for f in (nj.condition_number, nj.effective_rank):  # in float32, where the range ends earlier
        found = jax.jit(lambda w, f=f: f(nj.jacobian.standard({"w": w, "v": v}, matrix, "sin")))(w)
        assert np.isnan(found) or found >= 1


def test_effective_rank_of_zero_is_zero():
    for matrix in (np.zeros((3, 5)), np.zeros((5, 3))):
        J = nj.jacobian.explicit(matrix)
        assert nj.effective_rank(J) == 0
        value, slope = jax.value_and_grad(lambda a: nj.effective_rank(nj.jacobian.explicit(a)))(
            jnp.asarray(matrix, float)
        )
        assert value == 0
        assert np.all(np.isfinite(slope))
