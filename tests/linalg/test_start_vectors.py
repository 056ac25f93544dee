"""Matrices made so that a known start vector hides a singular value from an iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import HOST, Ritz, lanczos
from narrow_jax.spectra import tracking


def hiding(rows, dimension, values, seed=0):
    """A symmetric matrix with the start vector in an invariant subspace that has the first values."""
    rng = np.random.default_rng(seed)
    q = lanczos.start_vector(rows)[:, None]
    inner = np.linalg.qr(np.concatenate([q, rng.normal(size=(rows, rows - 1))], axis=1))[0]
    turn = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0] if dimension > 1 else np.eye(1)
    inner[:, :dimension] = inner[:, :dimension] @ turn
    matrix = (inner * np.asarray(values)) @ inner.T
    return (matrix + matrix.T) / 2


VALUES = {
    "the middle": ([2.0], [1.0, 3.0]),
    "the largest": ([3.0], [1.0, 2.0]),
    "two of four": ([2.0, 2.5], [1.0, 3.0]),
    "a multiple one": ([2.0, 2.0], [1.0, 1.0, 3.0]),
    "three of twelve": ([2.0, 2.25, 2.5], [1.0, *np.linspace(1.5, 2.9, 7), 3.0]),
}


@pytest.mark.parametrize("method", ["auto", "gram", "qr", "dense"])
@pytest.mark.parametrize("case", VALUES)
def test_extreme_values_are_found(case, method):
    inner, outer = VALUES[case]
    matrix = hiding(len(inner) + len(outer), len(inner), [*inner, *outer])
    padded = np.concatenate([matrix, np.zeros((len(matrix), 3))], axis=1)
    for operand in (matrix, padded):
        for certify in (True, False):
            s = nj.sigma_min(nj.jacobian.explicit(operand), method, certify=certify)
            assert s.value == pytest.approx(1, rel=1e-12)
            assert s.sigma_max == pytest.approx(3, rel=1e-6)
            assert s.lower <= s.value <= s.upper
        assert nj.condition_number(nj.jacobian.explicit(operand)) == pytest.approx(3, rel=1e-6)


def test_extreme_values_are_found_on_the_device(x64):
    solve = jax.jit(lambda a: nj.sigma_min(nj.jacobian.explicit(a), "gram", certify=False))
    inner, outer = VALUES["two of four"]
    for seed in range(4):
        s = solve(hiding(4, 2, [*inner, *outer], seed))
        assert float(s.value) == pytest.approx(1, rel=1e-12)
        assert float(s.sigma_max) == pytest.approx(3, rel=1e-12)


@pytest.mark.parametrize("blind", [1, 2, 3])
def test_lanczos_goes_on_after_a_breakdown(blind, x64):
    """A first vector drawn into an invariant subspace: the rest is still seen, on host and device."""
    rows = 9
    values = np.diag([*([2.0] * (rows - blind)), *np.linspace(3, 5, blind)])
    top = np.max(np.diag(values))
    start = lanczos.start_vector(rows)
    found = lanczos.host(lambda v: values @ v, start, 1e-16)
    assert found.first == pytest.approx(top, rel=1e-14)
    assert found.converged
    found = lanczos.device(lambda v: jnp.asarray(values) @ v, jnp.asarray(start), 1e-16)
    assert float(found.first) == pytest.approx(top, rel=1e-14)


def test_a_wrong_vector_is_replaced_where_bounds_are_asked_for(monkeypatch):
    """Whatever Lanczos says: a loose interval sends the route to the QR iteration."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 9))
    left, values, _ = np.linalg.svd(matrix)

    def second(factor, tolerance):
        return Ritz(left[:, -2], 1 / values[-2] ** 2, 0.5 / values[-2] ** 2, True)

    monkeypatch.setattr(HOST, "smallest", second)
    for method in ("auto", "qr"):
        s = nj.sigma_min(nj.jacobian.explicit(matrix), method)
        assert s.value == pytest.approx(values[-1], rel=1e-12)
        assert s.status == "certified"
        assert s.upper - s.lower < 1e-11
    assert nj.sigma_min(nj.jacobian.explicit(matrix), "gram").status == "not_converged"


@pytest.mark.parametrize("eigenvalue", [1.0, 2.0, 4.0])
def test_the_monitor_does_not_start_from_a_known_vector(eigenvalue, x64):
    rows = 6
    ones = np.linalg.qr(np.column_stack([np.ones(rows), np.eye(rows)[:, 1:]]))[0]
    spectrum = np.array([eigenvalue, *np.linspace(0.5, 3, rows - 1)])
    look = jax.jit(lambda a: tracking.look(tracking.start(rows), nj.jacobian.explicit(a)))
    state, value = look((ones * spectrum) @ ones.T)
    assert float(value) == pytest.approx(0.5, rel=1e-3)
    assert state.refreshes == 1


def test_drawn_vectors_differ_in_all_entries_for_any_bit():
    values = np.linspace(1, 2, 50)
    other = values.copy()
    other[17] = np.nextafter(other[17], 2)
    first, second = lanczos.drawn(values), lanczos.drawn(other)
    assert np.all(first != second)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5
    with jax.enable_x64(True):
        np.testing.assert_array_equal(first, lanczos.drawn(jnp.asarray(values)))
