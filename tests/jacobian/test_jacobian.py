"""Jacobian operators: every product against the matrix that JAX's own jacfwd and jacrev give, and what is refused."""

import functools
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax import jacobian

CLOSE = {"rtol": 1e-11, "atol": 1e-12}  # sums of up to 60 products of numbers of size one


@pytest.fixture(autouse=True)
def double(x64):
    """References are float64."""


@pytest.fixture
def unchecked():
    """Switch the suite's type checks off: they would speak before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@functools.cache
def jitted(differentiate, apply_fn):
    return jax.jit(differentiate(apply_fn))


def reference(apply_fn, params, x, differentiate, wrt=None):
    """The (n·k, p) matrix by ``differentiate``, leaf by leaf in the order of the flattened tree."""
    leaves = jitted(differentiate, apply_fn)(params, x)
    leaves = {name: leaf for name, leaf in leaves.items() if wrt is None or name in wrt}
    rows = jax.eval_shape(apply_fn, params, x).size
    return np.concatenate([np.asarray(leaf).reshape(rows, -1) for leaf in jax.tree.leaves(leaves)], axis=1)


@functools.cache
def net(kind):
    """Return the operator of a net with two outputs, and the net as a function of w alone."""
    params = {"w": draw(3, 6), "v": draw(3 if kind == "pairwise" else 6, 2, seed=1)}
    x = draw(5, 3, seed=2)
    apply_fn = getattr(nj.models, f"{kind}_apply")
    return getattr(jacobian, kind)(params, x), lambda p, x: apply_fn({**params, **p}, x), params, x


@pytest.mark.parametrize("kind", ["pairwise", "standard"])
def test_structured_operators_are_the_matrix_of_jax(kind):
    J, apply_fn, params, x = net(kind)
    expected, other = (reference(apply_fn, {"w": params["w"]}, x, f) for f in (jax.jacfwd, jax.jacrev))
    assert J.shape == expected.shape == (10, 18)
    np.testing.assert_allclose(other, expected, **CLOSE)
    check_products(J, expected)


bilinear = jax.jit(lambda J, u, p: J.bilinear(u, p))


def check_products(J, expected):
    rows, columns = expected.shape
    p, u = draw(columns, seed=7), draw(rows, seed=8)
    gram = np.asarray(J.gram())
    np.testing.assert_allclose(J.dense(), expected, **CLOSE)
    np.testing.assert_allclose(np.concatenate(list(J.column_blocks()), axis=1), expected, **CLOSE)
    np.testing.assert_allclose(J.mv(p), expected @ p, **CLOSE)
    np.testing.assert_allclose(J.rmv(u), expected.T @ u, **CLOSE)
    np.testing.assert_allclose(gram, expected @ expected.T, **CLOSE)
    np.testing.assert_allclose(bilinear(J, u, p), u @ expected @ p, **CLOSE)
    assert float(J.gram_error()) >= np.linalg.norm(gram - expected @ expected.T, 2)


def mlp(params, x):
    return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]["c"]) @ params["d"]


MLP_PARAMS = {"a": draw(3, 4), "b": {"c": draw(4, 5, seed=1)}, "d": draw(5, 2, seed=2)}
DATA = draw(6, 3, seed=3)


@pytest.mark.parametrize(
    ("mode", "wrt", "memory_budget"),
    [
        ("reverse", "c", 1 << 30),
        ("forward", ("d", "a"), 1 << 30),
        ("reverse", None, 7_000),
    ],
)
def test_autodiff_is_the_matrix_of_jax(mode, wrt, memory_budget):
    """The large budget stores the matrix, the small one computes blocks of columns for every product."""
    J = jacobian.autodiff(mlp, MLP_PARAMS, DATA, wrt=wrt, mode=mode, memory_budget=memory_budget)
    other = jax.jacfwd if mode == "reverse" else jax.jacrev
    expected = reference(mlp, MLP_PARAMS, DATA, other, ("b",) if wrt == "c" else wrt)
    assert J.shape == expected.shape
    assert J.plan.stored == (memory_budget == 1 << 30)
    check_products(J, expected)


def test_small_budget_means_several_blocks_and_batches():
    J = jacobian.autodiff(mlp, MLP_PARAMS, DATA, memory_budget=7_000)
    assert J.evaluate().block_count > 2
    assert J.plan.batch < len(DATA)


def test_leaves_go_by_the_first_parts_of_their_path_too():
    assert jacobian.autodiff(mlp, MLP_PARAMS, DATA, wrt="b").plan.chosen == (False, True, False)


def test_autodiff_of_one_output_a_sample_without_an_axis():
    J = jacobian.autodiff(lambda p, x: jnp.sin(x @ p["w"]), {"w": draw(3)}, DATA)
    w = draw(3)
    np.testing.assert_allclose(J.dense(), np.cos(DATA @ w)[:, None] * DATA, **CLOSE)


def test_autodiff_of_a_flax_module_by_path():
    module = nj.models.MLP(widths=(4, 2), activation="tanh", param_dtype=jnp.float64)
    variables = jax.jit(module.init)(jax.random.key(0), DATA)
    J = jacobian.autodiff(module.apply, variables, DATA, wrt="params/w2")
    hidden = np.tanh(DATA @ np.asarray(variables["params"]["w1"]))
    np.testing.assert_allclose(J.dense(), np.kron(hidden, np.eye(2)), **CLOSE)


def test_autodiff_equals_the_structured_operator_and_says_what_it_encloses():
    J, apply_fn, params, x = net("pairwise")
    general = jacobian.autodiff(apply_fn, {"w": params["w"]}, x)
    np.testing.assert_allclose(general.dense(), J.dense(), **CLOSE)
    s, t = nj.sigma_min(J), nj.sigma_min(general)
    assert t.value == pytest.approx(s.value, rel=1e-13)
    assert t.certified
    assert (s.encloses, t.encloses) == ("the Jacobian", "the Jacobian as computed in float64")


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_operators_work_inside_jit_and_vmap(mode):
    def value(params, x):
        return nj.sigma_min(
            jacobian.autodiff(mlp, params, x, wrt="a", mode=mode), "gram", certify=False
        ).value

    batch = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), MLP_PARAMS)
    together = jax.jit(jax.vmap(value, in_axes=(0, None)))(batch, DATA)
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        matrix = reference(mlp, one, DATA, jax.jacrev, ("a",))
        expected = np.linalg.svd(matrix, compute_uv=False)[-1]
        assert float(together[i]) == pytest.approx(expected, rel=1e-8)


def test_operators_are_pytrees():
    J = net("pairwise")[0]
    twice = jax.tree.map(lambda leaf: 2 * leaf, J)
    np.testing.assert_allclose(twice.v, 2 * J.v)
    assert twice.activation is J.activation
    leaves, structure = jax.tree.flatten(J)
    np.testing.assert_array_equal(jax.tree.unflatten(structure, leaves).dense(), J.dense())


@pytest.mark.parametrize(("n", "d", "h", "k"), [(1, 1, 1, 1), (2, 5, 1, 3), (7, 1, 4, 2)])
def test_edge_shapes(n, d, h, k):
    params, x = {"w": draw(d, 2 * h), "v": draw(h, k, seed=1)}, draw(n, d, seed=2)
    slopes = np.exp(-x @ params["w"]) / (1 + np.exp(-x @ params["w"])) ** 2
    signed = np.concatenate([params["v"], -params["v"]])
    expected = np.einsum("ia,ij,jc->icaj", x, slopes, signed).reshape(n * k, -1)
    check_products(jacobian.pairwise(params, x, "sigmoid"), expected)


class TestBadInput:
    """Every row has its message."""

    def test_samples_that_influence_each_other(self):
        def normalised(params, x):
            return ((x - x.mean(axis=0, keepdims=True)) / x.std(axis=0, keepdims=True)) @ params["w"]

        with pytest.raises(ValueError, match=r"couples samples.*train=False"):
            jacobian.autodiff(normalised, {"w": draw(3, 1)}, DATA)

    @pytest.mark.parametrize(
        ("apply_fn", "found"),
        [
            (lambda p, x: jnp.sum(x @ p["w"]), r"shape \(\)"),
            (lambda p, x: (x @ p["w"])[:3], r"shape \(3, 2\)"),
            (lambda p, x: {"a": x @ p["w"], "b": x[0]}, r"shape \(3,\) at 'b'"),
        ],
    )
    def test_wrong_output(self, apply_fn, found):
        with pytest.raises(ValueError, match=rf"apply_fn returns {found} for 6 samples"):
            jacobian.autodiff(apply_fn, {"w": draw(3, 2)}, DATA)

    def test_unknown_leaf(self):
        with pytest.raises(
            ValueError, match=r"unknown wrt leaf 'aa': did you mean 'a'\? Expected one of b, a, b/c, d"
        ):
            jacobian.autodiff(mlp, MLP_PARAMS, DATA, wrt="aa")

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match=r"unknown mode 'backward': .*Expected one of reverse, forward"):
            jacobian.autodiff(mlp, MLP_PARAMS, DATA, mode="backward")

    @pytest.mark.parametrize("dtype", [np.int32, np.complex128])
    def test_params_that_are_not_real_numbers(self, dtype):
        with pytest.raises(TypeError, match=rf"params leaf 'd' has dtype {np.dtype(dtype)}"):
            jacobian.autodiff(mlp, {**MLP_PARAMS, "d": np.ones((5, 2), dtype)}, DATA)
        with pytest.raises(TypeError, match=rf"w has dtype {np.dtype(dtype)}"):
            jacobian.pairwise({"w": np.ones((3, 2), dtype), "v": draw(1, 1)}, DATA)

    def test_data_that_are_not_real_numbers(self, unchecked):
        with pytest.raises(TypeError, match="x has dtype int64"):
            jacobian.autodiff(mlp, MLP_PARAMS, np.ones((6, 3), int))
        with pytest.raises(TypeError, match="x has dtype int64"):
            jacobian.standard({"w": draw(3, 2), "v": draw(2, 1)}, np.ones((6, 3), int))

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_non_finite_values(self, bad):
        x = DATA.copy()
        x[4, 1] = bad
        message = rf"x has 1 non-finite entries of 18, the first is {bad} at index \(4, 1\)"
        with pytest.raises(ValueError, match=message):
            jacobian.autodiff(mlp, MLP_PARAMS, x)
        with pytest.raises(ValueError, match=message):
            jacobian.pairwise({"w": draw(3, 2), "v": draw(1, 1)}, x)

    def test_no_sample(self):
        for make in (
            functools.partial(jacobian.autodiff, mlp, MLP_PARAMS),
            functools.partial(jacobian.pairwise, {"w": draw(3, 2), "v": draw(1, 1)}),
        ):
            with pytest.raises(ValueError, match=r"x has shape \(0, 3\): there is no sample"):
                make(np.zeros((0, 3)))

    @pytest.mark.parametrize(
        ("make", "shapes", "message"),
        [
            (jacobian.pairwise, ((3, 5), (2, 1), (6, 3)), "width is 5; expected an even number"),
            (
                jacobian.pairwise,
                ((3, 4), (4, 1), (6, 3)),
                "v has 4 rows and w has 4 columns.*expected 2 rows",
            ),
            (
                jacobian.standard,
                ((3, 4), (2, 1), (6, 3)),
                "v has 2 rows and w has 4 columns.*expected 4 rows",
            ),
            (jacobian.standard, ((3, 4), (4, 1), (6, 2)), "x has 2 columns and w has 3 rows"),
            (jacobian.standard, ((3, 4), (4, 0), (6, 3)), "expected at least one input, unit and output"),
            (jacobian.standard, ((3, 4), (4,), (6, 3)), r"v has shape \(4,\); expected a matrix"),
        ],
    )
    def test_params_and_x_that_do_not_fit(self, make, shapes, message):
        w, v, x = (draw(*shape) for shape in shapes)
        with pytest.raises(ValueError, match=message):
            make({"w": w, "v": v}, x)

    def test_params_without_the_leaves(self):
        with pytest.raises(
            ValueError, match=r"params is \['a', 'b', 'd'\]; expected a dict with the leaves 'w'"
        ):
            jacobian.pairwise(MLP_PARAMS, DATA)
        with pytest.raises(ValueError, match="params has no leaves"):
            jacobian.autodiff(lambda p, x: x, {}, DATA)

    @pytest.mark.parametrize("budget", [0, -5, 1.5])
    def test_budget_that_is_no_number_of_bytes(self, budget, unchecked):
        with pytest.raises(ValueError, match=rf"memory_budget is {budget}; expected a positive number"):
            jacobian.autodiff(mlp, MLP_PARAMS, DATA, memory_budget=budget)

    def test_budget_below_one_column(self):
        with pytest.raises(nj.MemoryBudgetError, match=r"needs at least [\d,]+ bytes for one column"):
            jacobian.autodiff(mlp, MLP_PARAMS, DATA, memory_budget=100)

    def test_explicit_matrices(self):
        with pytest.raises(ValueError, match=r"matrix has shape \(3,\)"):
            jacobian.explicit(np.ones(3))
        with pytest.raises(ValueError, match=r"matrix has shape \(0, 3\)"):
            jacobian.explicit(np.ones((0, 3)))
        with pytest.raises(ValueError, match="matrix has 1 non-finite"):
            jacobian.explicit(np.array([[1.0, np.nan]]))


class TestWidth:
    """The width that a mirrored start needs for a Jacobian of full row rank."""

    @pytest.mark.parametrize(
        ("n", "d", "k", "expected"), [(20, 5, 1, 8), (21, 5, 1, 10), (12, 6, 2, 8), (3, 4, 3, 6)]
    )
    def test_admissible_width_is_the_smallest_that_gives_full_rank(self, n, d, k, expected):
        x = draw(n, d)
        assert jacobian.admissible_width(x, outputs=k) == expected
        assert np.linalg.matrix_rank(self.mirrored(x, expected, k)) == n * k
        assert np.linalg.matrix_rank(self.mirrored(x, expected - 2, k)) < n * k

    @staticmethod
    def mirrored(x, m, k):
        half, v = draw(x.shape[1], m // 2, seed=3), draw(m // 2, k, seed=4)
        slopes = np.cosh(x @ np.concatenate([half, half], axis=1)) ** -2.0
        return np.einsum("ia,ij,jc->icaj", x, slopes, np.concatenate([v, -v])).reshape(len(x) * k, -1)

    def test_too_narrow_warns_and_names_the_smallest(self):
        message = "width 2 is too narrow: 1 pairs times rank.X. = 3 give rank at most 3 for 6 samples"
        with pytest.warns(UserWarning, match=message + ".*smallest admissible width is 4"):
            jacobian.check_width(DATA, 2)
        with pytest.raises(ValueError, match=message):
            jacobian.check_width(DATA, 2, strict=True)
        jacobian.check_width(DATA, 4, strict=True)

    def test_odd_width(self):
        with pytest.raises(ValueError, match="width is 5; expected an even number"):
            jacobian.check_width(DATA, 5)

    def test_data_of_zeros(self):
        with pytest.raises(ValueError, match="x is 0 everywhere"):
            jacobian.admissible_width(np.zeros((4, 3)))


MEMBERS = (
    "evaluate",
    "bilinear",
    "mv",
    "rmv",
    "gram",
    "dense",
    "column_blocks",
    "perturbation",
    "gram_error",
    "shape",
    "dtype",
    "encloses",
)


class TestOperatorOfOnesOwn:
    """It has the members and inherits nothing."""

    inner = nj.jacobian.explicit(np.diag([3.0, 2.0]))

    def members(self):
        return {name: getattr(self.inner, name) for name in MEMBERS}

    def test_members_of_the_class(self):
        own = {n: staticmethod(m) if callable(m) else m for n, m in self.members().items()}
        assert nj.sigma_min(type("Own", (), own)()).value == nj.sigma_min(self.inner).value

    def test_members_of_the_object(self):
        own = types.SimpleNamespace(**self.members())
        assert nj.sigma_min(own).value == nj.sigma_min(self.inner).value

    def test_members_of_another_operator(self):
        own = type("Own", (), {"__getattr__": lambda _, name: getattr(self.inner, name)})()
        assert nj.singular_values(own).values[-1] == nj.singular_values(self.inner).values[-1]

    @pytest.mark.parametrize("gone", MEMBERS)
    def test_a_member_is_missing(self, gone):
        own = self.members()
        del own[gone]
        with pytest.raises(TypeError, match="J is a SimpleNamespace; expected a Jacobian operator"):
            nj.sigma_min(types.SimpleNamespace(**own))
