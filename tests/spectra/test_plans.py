"""``memory_budget`` is compared with what NumPy allocates; what XLA counts is in tests/aot/test_memory_plans.py."""

import tracemalloc

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.spectra import METHODS, plans

SIZES = [(300, 20, 60), (250, 60, 60), (400, 20, 50), (500, 20, 60), (2000, 3, 20)]
"""Samples, inputs, neurons: two blocks of columns, five, one, one, and more rows than columns."""


def net(sizes):
    n, d, m = sizes
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(d, m)), "v": rng.normal(size=(m // 2, 1))}, rng.normal(size=(n, d))


def allocated(f):
    f()  # what is made once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        f()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def of(sizes):
    return plans.Sizes.of(nj.jacobian.pairwise(*net(sizes)))


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("method", [method for method in METHODS if method != "auto"])
@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes[0] <= sizes[1] * sizes[2]])
def test_the_host_takes_what_is_planned(sizes, method, certify, unchecked):
    J = nj.jacobian.pairwise(*net(sizes))
    found = allocated(lambda: nj.sigma_min(J, method, certify))
    assert found == pytest.approx(plans.of_sigma_min(of(sizes), "host", certify)[method], rel=0.25)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_host_takes_what_is_planned_for_all_values(sizes, unchecked):
    J = nj.jacobian.pairwise(*net(sizes))
    found = allocated(lambda: nj.singular_values(J))
    assert found == pytest.approx(plans.of_singular_values(of(sizes), "host"), rel=0.25)


def test_auto_is_planned_for_the_larger_of_its_routes():
    """A matrix whose Gram matrix resolves nothing takes the QR route after it."""
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(200, 200)))[0], np.linalg.qr(rng.normal(size=(500, 200)))[0]
    J = nj.jacobian.explicit(left * np.geomspace(1, 1e-12, 200) @ right.T)
    assert nj.sigma_min(J).method == "qr"
    found = allocated(lambda: nj.sigma_min(J))
    planned = plans.of_sigma_min(plans.Sizes.of(J), "host", True)
    assert planned["auto"] >= planned["gram"]
    assert found == pytest.approx(planned["auto"], rel=0.4)


def test_a_budget_of_half_the_plan_is_refused_and_the_plan_accepted():
    J = nj.jacobian.pairwise(*net(SIZES[0]))
    needs = plans.of_sigma_min(plans.Sizes.of(J), "host", True)["gram"]
    assert nj.sigma_min(J, "gram", memory_budget=needs).status == "certified"
    with pytest.raises(nj.MemoryBudgetError, match=f"needs {needs:,} bytes"):
        nj.sigma_min(J, "gram", memory_budget=needs // 2)


def test_many_rows_are_formed_again_and_proven_alike(monkeypatch, x64):
    """Kept or not, the interval is the same to rounding."""
    params, x = net((40, 8, 12))
    certified = lambda: jax.jit(lambda p, x: nj.sigma_min(nj.jacobian.pairwise(p, x), "gram"))(params, x)  # noqa: E731
    kept = certified()
    monkeypatch.setattr(plans, "KEPT", 10)
    jax.clear_caches()
    formed = certified()
    assert formed.status == "certified"
    np.testing.assert_allclose([formed.lower, formed.upper], [kept.lower, kept.upper], rtol=1e-12)


@pytest.mark.parametrize("number", [nj.condition_number, nj.effective_rank, nj.singular_values])
def test_numbers_of_the_spectrum_take_a_budget(number):
    J = nj.jacobian.explicit(np.diag([3.0, 2.0]))
    assert str(number(J, memory_budget=100_000)) == str(number(J))
    with pytest.raises(nj.MemoryBudgetError, match=r"needs [\d,]+ bytes and memory_budget is 100"):
        number(J, memory_budget=100)
    with pytest.raises(ValueError, match="memory_budget is 0; expected a positive number"):
        number(J, memory_budget=0)


def test_a_budget_too_small_for_the_condition_number_says_by_what_it_can_be_had():
    J = nj.jacobian.pairwise(*net((40, 8, 12)))
    with pytest.raises(
        nj.MemoryBudgetError, match=r"nj.sigma_min\(J, method, certify=False\).* nothing fits below"
    ):
        nj.condition_number(J, memory_budget=1000)


@pytest.mark.parametrize("certify", [True, False])
def test_auto_is_gram_where_the_budget_holds_no_more(certify):
    J = nj.jacobian.pairwise(*net((40, 8, 12)))
    needs = plans.of_sigma_min(plans.Sizes.of(J), "host", certify)
    assert needs["gram"] < needs["auto"]
    found = nj.sigma_min(J, certify=certify, memory_budget=needs["gram"])
    assert (found.method, found.status) == ("gram", "certified" if certify else "estimate")
    assert found.value == nj.sigma_min(J, "gram", certify=certify).value
    with pytest.raises(nj.MemoryBudgetError, match="sigma_min with 'auto' needs"):
        nj.sigma_min(J, certify=certify, memory_budget=needs["gram"] - 1)


class Delegating:
    """A user's own operator, which is no tree of JAX."""

    def __init__(self, J):
        self.J = J

    def __getattr__(self, name):
        return getattr(self.J, name)


def test_an_operator_by_its_members_alone_takes_a_budget(unchecked):
    J = Delegating(nj.jacobian.explicit(np.diag([3.0, 2.0])))
    assert float(nj.sigma_min(J, memory_budget=np.int64(100_000)).value) == pytest.approx(2)
    assert float(nj.singular_values(J, memory_budget=100_000).values[0]) == pytest.approx(3)
    for odd in (0, -1, True, "1G", 1e9):
        with pytest.raises(ValueError, match=r"expected a positive number of bytes, an int, or None"):
            nj.sigma_min(J, memory_budget=odd)


def test_float32_takes_half():
    J = nj.jacobian.explicit(np.eye(40, 60))
    needs = plans.of_sigma_min(plans.Sizes.of(J), "cpu", False)["gram"]
    assert nj.sigma_min(J, "gram", dtype="float32", memory_budget=needs // 2).status == "estimate"


def test_numbers_of_the_spectrum_of_a_known_matrix_inside_of_a_program():
    J = nj.jacobian.explicit(np.diag([3.0, 2.0]))
    found = jax.jit(lambda x: x + nj.condition_number(J) + nj.effective_rank(J))(0.0)
    assert float(found) == pytest.approx(1.5 + float(nj.effective_rank(J)))


def test_no_limit_for_autodiff():
    params, x = {"w": np.ones((3, 2))}, np.ones((2, 3))
    J = nj.jacobian.autodiff(lambda p, x: x @ p["w"], params, x, memory_budget=None)
    assert J.shape == (4, 6)


def test_data_beyond_float32_are_differentiated_without_a_warning():
    x = np.eye(3) * 1e60
    value = jax.jit(
        lambda w: nj.sigma_min(nj.jacobian.pairwise({"w": w, "v": np.ones((1, 1)) * 1e-60}, x)).value
    )
    value(np.zeros((3, 2)))  # warnings are errors here
