"""Stationary values and bounds where squares, features or sensitivities leave the range of numbers."""

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.activations import leaky_relu
from narrow_jax.certificates import stationary_value

METHODS = ("dense", "qr", "cholesky", "lsmr")
NETS = {"shallow": ((4, 4, 1), 40, "relu"), "wide": ((4, 6, 5, 3), 6, "abs")}


def problem(name):
    sizes, samples, activation = NETS[name]
    rng = np.random.default_rng(0)
    params = {f"w{i}": rng.normal(size=sizes[i - 1 : i + 1]) for i in range(1, len(sizes))}
    return params, rng.normal(size=(samples, sizes[0])), rng.normal(size=(samples, sizes[-1])), activation


def in_units(value, exponent):
    """value·2^exponent with a value ≥ 0: above 0 where it underflows, infinite beyond the largest number."""
    with np.errstate(over="ignore", under="ignore"):
        return np.where(np.asarray(value) > 0, np.maximum(np.ldexp(value, exponent), 2.0**-1022), value)


@pytest.mark.parametrize("exponent", [-1000, -560, 1000])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["shallow", "wide"])
def test_stationary_value_is_the_same_in_any_unit_of_the_targets(name, method, exponent):
    """½‖2^e(Ŷ − Y)‖² leaves the range of numbers where 2^e does not: what is compared may not."""
    params, x, y, activation = problem(name)
    last = f"w{len(params)}"
    other = params | {last: np.ldexp(params[last], exponent)}
    s = stationary_value(params, x, y, activation, method=method)
    t = stationary_value(other, x, np.ldexp(y, exponent), activation, method=method)
    assert (t.holds, t.ranks, t.residual, t.status) == (s.holds, s.ranks, s.residual, s.status)
    for field in ("loss", "value", "gap", "baseline", "layers", "gap_bound"):
        if getattr(s, field) is not None:
            np.testing.assert_array_equal(getattr(t, field), in_units(getattr(s, field), 2 * exponent))
    assert t.gradient_norm >= 2.0**-1022


@pytest.mark.parametrize("y", [0.0, 2.0**-700, 2.0**700])
def test_small_outputs_are_no_stationary_point_of_other_targets(y):
    params, x, target, _ = problem("shallow")
    for exponent in (-900, 900):
        other = params | {"w2": np.ldexp(params["w2"], exponent)}
        for targets in (np.full_like(target, y), y * target):
            s = stationary_value(other, x, targets)
            beyond = (
                y == 2.0**700 and exponent == -900
            )  # outputs too small to matter: only the range of D does
            assert s.loss >= max(s.value, 2.0**-1022)
            assert not s.holds
            assert beyond or s.gap >= 0.1 * s.loss
    s = stationary_value(params | {"w2": 0 * params["w2"]}, x, 0 * target)
    assert s.holds
    assert s.loss == 0


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize(
    "exponents",
    [(1000, -400, -400, -200), (900, 900, -900, -900), (-900, -900, 900, 900), (-1000, 1000, 0, 0)],
)
def test_no_layer_is_lost_between_layers_of_unlike_scale(exponents, method):
    """The same function, exactly, whose features or sensitivities leave the range of numbers."""
    rng = np.random.default_rng(1)
    sizes = (3, 4, 3, 3, 1)
    params = {f"w{i}": rng.normal(size=sizes[i - 1 : i + 1]) for i in range(1, 5)}
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 1))
    other = {name: np.ldexp(w, e) for (name, w), e in zip(params.items(), exponents, strict=True)}
    s, t = (stationary_value(p, x, y, leaky_relu(0.3), method=method) for p in (params, other))
    assert (t.value, t.loss, t.gap, t.ranks, t.status) == (s.value, s.loss, s.gap, s.ranks, s.status)
    assert (t.zeros, t.kinks) == (s.zeros, s.kinks)
    assert t.sigma_max > 0
    assert np.isfinite([t.sigma_max, t.sigma_r, t.gradient_norm]).all()


@pytest.mark.parametrize("exponent", [-1000, -560, 500, 1000])
def test_the_bound_is_the_same_in_any_unit_of_the_targets(exponent):
    x = np.abs(np.random.default_rng(0).normal(size=(20, 3)))
    y = np.random.default_rng(1).normal(size=(20, 1))
    params = nj.certificates.separated_params(jax.random.key(0), x, (4, 3, 1), 0)
    other, targets = params | {"w3": np.ldexp(params["w3"], exponent)}, np.ldexp(y, exponent)
    for layers in ([], [0], [1, 2], [0, 1, 2]):
        a, b = (
            nj.certificates.basis_function_bound(p, x, t, layers, 0)
            for p, t in ((params, y), (other, targets))
        )
        assert not a.holds
        assert not b.holds
        for field in ("loss", "bound", "regression", "improvement"):
            assert getattr(b, field) == in_units(getattr(a, field), 2 * exponent)
        value = nj.certificates.regression_value(params, x, y, layers)
        assert nj.certificates.regression_value(other, x, targets, layers) == in_units(value, 2 * exponent)
