"""Theorem 3.2 as a certificate: constants against 40 digits, the bounds against descent, what breaks it."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramids import SIGMA, WIDTHS, autodiff, descend, exact_constants, exact_sigma, problem, sigma

import narrow_jax as nj
from narrow_jax.certificates.pyramidal_nets import sharper_constants as sharper
from narrow_jax.certificates.pyramidal_nets.constants import Constants
from narrow_jax.certificates.pyramidal_nets.guarantee import Guarantee
from narrow_jax.certificates.pyramidal_nets.measured_norms import EVALUATION, StartNorms

CONSTANTS = 1e-10  # relative: room for the rounding to the safe side
certify = nj.certificates.pyramidal


@pytest.mark.parametrize("layers", [2, 3, 5, 8])
def test_constants_equal_40_digit_arithmetic(layers):
    params, x, y = problem(WIDTHS[layers], scale=3.0, second=0.1)
    c = certify(params, x, y, SIGMA)
    with mpmath.workdps(40):
        exact = exact_constants(params, x, y)
        found = {name: getattr(c, name) for name in exact if name != "r"} | {"r": 10**c.log10_r}
        for name, values in exact.items():
            values = values if isinstance(values, list) else [values]
            mine = found[name] if isinstance(found[name], tuple) else [found[name]]
            for value, own in zip(values, mine, strict=True):
                assert abs(own - value) <= CONSTANTS * abs(value), name
        # and on the safe side
        below = ("lambda_f", "condition4", "condition5", "alpha0", "max_learning_rate")
        above = ("x_norm", "x_frobenius", "initial_loss", "q0", "q1", "r")
        assert all(found[name] <= exact[name] for name in below)
        assert all(found[name] >= exact[name] for name in above)
        assert all(a <= b for a, b in zip(c.lambdas, exact["lambdas"], strict=True))
        assert all(a >= b for a, b in zip(c.lambda_bars, exact["lambda_bars"], strict=True))


def test_twenty_layers_overflow_nothing():
    params, x, y = problem(WIDTHS[20], scale=1e9)
    c = certify(params, x, y, nj.activations.smooth_leaky_relu(1e-3, 1e6))
    assert all(map(math.isfinite, (c.condition4, c.condition5, *c.paper[2:6])))
    assert c.paper.log10_q > 308  # what overflows as a number does not as a logarithm
    assert c.q0 == math.inf


def test_activation_is_evaluated_within_the_stated_error():
    z = np.concatenate([np.linspace(-9, 9, 181), [1e-8, -1e-8, 40.0, -40.0]])
    with jax.enable_x64(True):
        values = np.asarray(sigma(z)[0])
    with mpmath.workdps(40):
        units = [
            float(abs(mpmath.mpf(float(v)) - exact_sigma(mpmath.mpf(float(t)))) / abs(t)) * 2.0**53
            for t, v in zip(z, values, strict=True)
            if t
        ]
    assert max(units) < EVALUATION / 8


@pytest.mark.parametrize("which", ["paper", "sharper"])
@pytest.mark.parametrize(("layers", "scale", "steps"), [(2, 1.0, 1000), (3, 1e4, 400)])
def test_descent_keeps_to_the_bounds(x64, which, layers, scale, steps):
    params, x, y = problem(WIDTHS[layers], scale=scale, second=1e-9, targets=1e-4)
    guarantee = getattr(certify(params, x, y, SIGMA), which)
    assert guarantee.holds, guarantee.reason
    losses, path = descend(params, x, y, guarantee.learning_rate, steps)
    bounds = np.array([guarantee.loss_bound(k) for k in range(steps)])
    seen = bounds > 1e-20 * bounds[0]  # below that Φ is rounding
    assert np.all(np.asarray(losses)[seen] <= bounds[seen] * (1 + 1e-9))
    path = jax.tree.map(np.asarray, path)
    for layer, radius in enumerate(guarantee.radii, start=1):
        moved = np.linalg.norm(path[f"w{layer}"] - params[f"w{layer}"], axis=(1, 2))
        assert moved.max() <= radius
    # ‖θ_k − θ_*‖ ≤ ‖θ_k − θ_end‖ + distance_bound(end): the bound (9) for the last step closes the gap
    last = steps - 1
    for k in range(0, steps, steps // 20):
        gap = math.sqrt(sum(np.sum((w[k] - w[last]) ** 2) for w in path.values()))
        assert gap <= guarantee.distance_bound(k) + guarantee.distance_bound(last)


def test_bound_is_not_vacuous(x64):
    """N=5, d=10, L=2, n_1=400: the bound falls by 1e4 within 1e4 steps."""
    params, x, y = problem((400, 1), samples=5, inputs=10)
    c = certify(params, x, y, SIGMA)
    assert c.holds
    assert c.paper.loss_bound(10_000) < 1e-4 * c.initial_loss
    losses, _ = descend(params, x, y, c.learning_rate, 2000)
    assert float(losses[-1]) <= c.paper.loss_bound(1999) < 0.1 * c.initial_loss


@given(
    st.integers(0, 50),
    st.sampled_from([2, 3, 5]),
    st.floats(0.2, 0.9),
    st.floats(0.1, 10),
    st.floats(1e-9, 1e-4),
)
def test_sharper_constants_are_never_worse(seed, layers, gamma, beta, targets):
    measured = StartNorms.of(*problem(WIDTHS[layers], scale=1e4, targets=targets, seed=seed), SIGMA)
    bent = dataclasses.replace(SIGMA, min_derivative=gamma, sup_second_derivative=beta)
    paper = Constants.of(measured, bent).guarantee(measured, None, [])
    own = sharper.guarantee(measured, bent, None, [])
    if paper.holds:
        assert own.holds
        assert own.log10_alpha >= paper.log10_alpha
        assert own.log10_q <= paper.log10_q
        assert own.log10_distance <= paper.log10_distance


@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]))
def test_envelope_holds_inside_the_balls(seed, layers):
    rng = np.random.default_rng(seed)
    params, x, y = problem(WIDTHS[layers], seed=seed, second=0.3)
    measured = StartNorms.of(params, x, y, SIGMA)
    radii = tuple(float(r) for r in 0.1 * rng.random(layers))
    bounds = sharper.envelope(measured, SIGMA, radii)
    a, b = (
        {
            name: w + radius * direction / np.linalg.norm(direction)
            for (name, w), radius in zip(sorted(params.items()), radii, strict=True)
            for direction in [rng.normal(size=w.shape)]
        }
        for _ in range(2)
    )
    with jax.enable_x64(True):
        (outputs, _, first), (_, _, second) = (autodiff(p, x, y) for p in (a, b))
    jacobians = [{name: np.asarray(j).reshape(y.size, -1) for name, j in p.items()} for p in (first, second)]
    ja, jb = (np.concatenate([j[name] for name in sorted(j)], axis=1) for j in jacobians)
    distance = math.sqrt(sum(np.sum((a[name] - b[name]) ** 2) for name in a))
    assert np.linalg.norm(ja, 2) <= bounds.jacobian
    assert np.linalg.norm(ja - jb, 2) <= bounds.curvature * distance
    for layer, name in enumerate(sorted(a)):
        assert np.linalg.norm(jacobians[0][name], 2) <= bounds.layer[layer]
    gap = (np.asarray(outputs) - y).ravel()
    assert np.sum((ja.T @ gap) ** 2) >= bounds.alpha * np.sum(gap**2)


def changed(**changes):
    """A certified start and data with some arrays replaced."""
    params, x, y = problem((10, 3, 2), scale=1e4)
    data = {"x": x, "y": y}
    for name, change in changes.items():
        part = data if name in data else params
        part[name] = change(part[name])
    return params, data["x"], data["y"]


def twice(x):
    return np.concatenate([x[:-1], x[:1]])


def test_the_start_that_is_changed_below_holds():
    assert certify(*changed(), SIGMA).holds


CONTROLS = {
    "width N − 1": (problem((3, 3, 2), scale=1e4), SIGMA, r"Assumption 2.1: the first layer has 3 < N = 4"),
    "widens": (
        problem((10, 2, 3), scale=1e4),
        SIGMA,
        r"Assumption 2.1: the widths n_2 … n_L = 2, 3 increase",
    ),
    "relu": (changed(), "relu", r"Assumption 2.2 \(i\): inf σ' = 0 .* for relu; Assumption 2.2 \(iii\)"),
    "abs": (changed(), "abs", r"Assumption 2.2 \(i\): inf σ' = -1"),
    "tanh": (changed(), "tanh", r"Assumption 2.2 \(i\): inf σ' = 0 is not above 0 for tanh$"),
    "erf": (changed(), "erf", r"sup σ' = 1.128\d* exceeds 1"),
    "softplus": (changed(), "softplus", r"Assumption 2.2 \(ii\): σ\(0\) = 0.693"),
    "duplicate samples": (changed(x=twice), SIGMA, r"Assumption 3.1: F_1 .* rows 0 and 3 of x are equal"),
    "x = 0": (changed(x=lambda x: 0 * x), SIGMA, r"Assumption 3.1: F_1 .* row 0 of x is zero"),
    "singular W_3": (
        changed(w3=lambda w: w * [[1.0, 0.0]]),
        SIGMA,
        r"Assumption 3.1: W_3 is singular .* λ_3 = 0",
    ),
    "zero W_1": (
        changed(w1=lambda w: 0 * w),
        SIGMA,
        r"Assumption 3.1: F_1 is singular to rounding, λ_F = 0$",
    ),
    "large targets": (
        changed(y=lambda y: 1e9 * y),
        SIGMA,
        r"condition \(4\) fails by a factor of .*; condition \(5\)",
    ),
}


@pytest.mark.parametrize(("case", "activation", "reason"), CONTROLS.values(), ids=CONTROLS.keys())
def test_a_broken_assumption_is_named(case, activation, reason):
    c = certify(*case, activation)
    assert not c.holds
    assert not c.sharper.holds
    assert re.search(reason, c.reason), c.reason


def test_a_step_ten_times_too_large_is_not_certified():
    case = changed()
    largest = certify(*case, SIGMA).max_learning_rate
    assert certify(*case, SIGMA, learning_rate=largest).holds
    c = certify(*case, SIGMA, learning_rate=10 * largest)
    assert not c.holds
    assert c.reason.startswith(f"the step {10 * largest:.3g} is not below min(1/α₀, 1/Q₀) = {largest:.3g}")


def test_one_sample_is_enough():
    assert certify(*problem((3, 2, 1), samples=1, scale=1e4), SIGMA).holds


def test_a_user_s_activation_is_judged_by_its_constants():
    blend = nj.activations.Activation(
        "blend", lambda z: (z + jnp.tanh(z)) / 2, lambda z: 1 - jnp.tanh(z) ** 2 / 2, 1.0, 0.5, 0.39
    )
    assert certify(*changed(), blend).holds


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_low_precision_is_taken_as_it_is(dtype):
    params, x, y = problem((12, 1))
    low = {name: w.astype(dtype) for name, w in params.items()}
    c = certify(low, x.astype(dtype), y.astype(dtype), SIGMA)
    wide = certify(
        *jax.tree.map(lambda a: a.astype(np.float64), (low, x.astype(dtype), y.astype(dtype))), SIGMA
    )
    assert c[:13] == wide[:13]


def test_steps_below_rounding_are_counted():
    params, x, y = problem((12, 1), second=0.1)
    low = {name: w.astype(np.float32) for name, w in params.items()}
    assert certify(low, x, y, SIGMA, learning_rate=1e-3).unmoved < 0.1
    assert certify(low, x, y, SIGMA, learning_rate=1e-12).unmoved == 1.0
    assert certify(params, x, y, SIGMA, learning_rate=1e-12).unmoved < 0.1


BAD = {
    "bias": (changed(), {"b1": np.ones(3)}, None, ValueError, "leaves b1, w1, w2, w3; expected w1, w2"),
    "chain": (changed(), {"w2": np.ones((4, 3))}, None, ValueError, "expected matrices .* that chain"),
    "not finite": (changed(w1=lambda w: w * np.nan), {}, None, ValueError, "w1 has 60 non-finite entries"),
    "x not finite": (changed(x=lambda x: x * np.inf), {}, None, ValueError, "x has 24 non-finite entries"),
    "no sample": (changed(x=lambda x: x[:0], y=lambda y: y[:0]), {}, None, ValueError, "there is no sample"),
    "y columns": (
        changed(y=lambda y: y[:, :1]),
        {},
        None,
        ValueError,
        r"y \(4, 1\); expected \(N, 6\) and \(N, 2\)",
    ),
    "y rows": (changed(y=lambda y: y[:2]), {}, None, ValueError, "x has 4 samples and y has shape"),
    "y flat": (changed(y=lambda y: y[:, 0]), {}, None, ValueError, r"y has shape \(4,\); expected a matrix"),
    "labels": (changed(y=lambda y: (y > 0).astype(int)), {}, None, TypeError, "y has dtype int64"),
    "rate 0": (changed(), {}, 0.0, ValueError, "learning rate is 0.0; expected a finite number > 0"),
    "rate −1": (changed(), {}, -1.0, ValueError, "learning rate is -1.0"),
    "rate NaN": (changed(), {}, math.nan, ValueError, "learning rate is nan"),
}


@pytest.mark.parametrize(("case", "extra", "rate", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(case, extra, rate, error, message):
    params, x, y = case
    with pytest.raises(error, match=message):
        certify(params | extra, x, y, SIGMA, learning_rate=rate)


def test_one_layer_is_refused():
    with pytest.raises(ValueError, match=r"params have one layer \(6, 1\); expected w1 and w2"):
        certify({"w1": np.ones((6, 1))}, np.ones((4, 6)), np.ones((4, 1)), SIGMA)


@pytest.mark.parametrize(("gamma", "beta"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.0), (0.5, -1.0)])
def test_constants_outside_assumption_2_2_are_refused(gamma, beta):
    with pytest.raises(ValueError, match=r"gamma is|beta is"):
        nj.activations.smooth_leaky_relu(gamma, beta)


def test_guarantee_counts_steps():
    g = Guarantee(True, "", -2.0, 1.0, 0.0, -1.0, 0.1, 8.0, (1.0,))  # ηα = 1e-3
    k = g.steps_to(1e-3)
    assert g.loss_bound(k) <= 1e-3 < g.loss_bound(k - 1)
    assert k == math.ceil(math.log(8e3) / -math.log1p(-1e-3))
    assert g.distance_bound(2000) == pytest.approx((1 - 1e-3) ** 1000)
    assert g.steps_to(9.0) == 0
    assert g.steps_to(0.0) == math.inf
    slow = g._replace(log10_alpha=-400.0)
    assert (slow.loss_bound(1e9), slow.steps_to(1.0)) == (8.0, math.inf)
