"""Data, weights and labels of any size: what is proven of them is true, and what cannot be represented is not proven.

Each problem is one whose truth is known at every scale: labels beyond what the net can reach, a KKT point of loss ½,
a region whose radius is known in closed form, a Theorem whose constants mpmath evaluates in 50 digits.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from pyramids import SIGMA, WIDTHS, exact_constants, problem

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import constants
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.pyramidal_nets import equation21_invariants as invariants
from narrow_jax.certificates.pyramidal_nets import guarantee
from narrow_jax.certificates.pyramidal_nets import sharper_constants as sharper
from narrow_jax.certificates.pyramidal_nets.guarantee import Guarantee
from narrow_jax.certificates.pyramidal_nets.measured_norms import StartNorms
from narrow_jax.jacobian import Net
from narrow_jax.linalg import rounding as fl

SCALES = [5e-324, 2.0**-565, 1e-160, 2.0**-398, 1.0, 1e160, 1e300]
KEY = jax.random.key(0)
N, D, WIDTH = 4, 6, 8


def mpf(value):
    return mpmath.mpf(float(value))


def net(seed=0):
    """A mirrored start, v = 1, and data, with entries that scale without overflow."""
    rng = np.random.default_rng(seed)
    half = rng.uniform(-1, 1, size=(D, WIDTH // 2))
    return {"w": np.tile(half, 2), "v": np.ones((WIDTH // 2, 1))}, rng.uniform(0.25, 1, size=(N, D))


@pytest.mark.parametrize(("a", "b"), list(itertools.product(SCALES, repeat=2)))
def test_labels_beyond_reach_are_not_memorized(a, b):
    """|f| ≤ Σ_j 2|v_j| ≤ 8b for every w, and the labels are 1000b."""
    params, x = net()
    params["v"] = b * params["v"]
    c = nj.certificates.memorization(params, params, a * x, np.full(N, 1000 * b))
    assert not c.holds
    assert c.rho == math.inf
    assert not np.isnan([c.eta, c.lipschitz, c.g, c.distance]).any()


@pytest.mark.parametrize(("a", "b"), list(itertools.product([2.0**-30, 1.0, 2.0**30], repeat=2)))
def test_the_same_problem_in_other_units_is_memorized_too(a, b):
    x = np.random.default_rng(0).normal(size=(6, 4))
    m = nj.memorize(KEY, x, np.sin(x[:, 0]), width=4, radius=0.5, certify=False)
    params = {"w": m.params["w"] / a, "v": b * m.params["v"]}
    c = nj.certificates.memorization(params, m.center["w"] / a, a * x, b * np.sin(x[:, 0]), 0.5 / a)
    assert c.holds, c.reason


UNIT_CURVATURE = nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0)
"""S₂ = 1: the Lipschitz constant for inputs of norm 1 is that of v alone."""


def of_theorem_1(v, x, sigma):
    """L of a net of one hidden layer, whatever its weights there."""
    return lipschitz(Net.of({"w": np.ones((x.shape[1], len(v))), "v": v}, sigma), x, math.inf)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(SCALES, repeat=2)))
def test_lipschitz_constants_and_norms_are_upper_bounds(a, b):
    _, x = net()
    x, v = a * x, b * np.arange(1.0, 9.0).reshape(4, 2)
    sigma = nj.activations.get("tanh")
    with mpmath.workdps(50):
        row = mpmath.sqrt(mpf(v[3, 0]) ** 2 + mpf(v[3, 1]) ** 2)
        inputs = max(mpmath.fsum(mpf(entry) ** 2 for entry in sample) for sample in x)  # ‖x_i‖² of one sample
        bound = constants.input_norm(x)
        assert bound >= inputs
        assert of_theorem_1(v, np.eye(1, 4), UNIT_CURVATURE) >= row
        assert of_theorem_1(v, x, sigma) >= mpf(sigma.sup_second_derivative) * row * inputs
        away = mpmath.sqrt(mpmath.fsum(mpf(entry) ** 2 for entry in x.ravel()))
        assert constants.distance(x, 0 * x) >= away
        if fl.NORMAL < away < 1e308:
            assert constants.distance(x, 0 * x) <= away * (1 + 1e-12)
    assert constants.distance(x, x) == of_theorem_1(0 * v, x, sigma) == constants.input_norm(0 * x) == 0


SINE = nj.activations.get("sin")


def saddle(a, b=1.0):
    """One sample x = a, label 1, and w = π/2a: f = 0 and J = 0, a KKT point of loss ½, 2.22/a from w = 0."""
    half_turn = np.full((1, 2), math.pi / 2) / a
    return {"w": half_turn, "v": np.full((1, 1), b)}, {"w": 0 * half_turn, "v": np.full((1, 1), b)}


FINITE = [1e-300, 2.0**-565, 1e-150, 2.0**-398, 1.0, 1e150, 1e300]


@pytest.mark.parametrize("a", FINITE)
def test_the_region_ends_before_the_saddle(a):
    """ε₀ = √2/a exactly."""
    _, center = saddle(a)
    region = nj.certificates.nice_region(center, np.full((1, 1), a), SINE)
    with mpmath.workdps(50):
        assert region.radius <= mpmath.sqrt(2) / mpf(a) * (1 + mpf(1e-15))
    assert region.holds == (region.radius > 0)
    if not region.holds:
        assert "rescale" in region.reason or "not proven" in region.reason


@pytest.mark.parametrize(("a", "b"), list(itertools.product(FINITE, [1e-200, 1.0, 1e200])))
def test_a_kkt_point_of_loss_one_half_is_not_said_to_have_loss_zero(a, b):
    params, center = saddle(a, b)
    x, radius = np.full((1, 1), a), 2.3 / a
    c = nj.certificates.kkt(params, center, x, np.ones(1), radius, zeta=b, kappa=1.0, activation=SINE)
    assert (c.holds, c.here, c.everywhere) == (False, False, False)
    assert c.loss == 0.5
    assert not c.threshold > radius
    assert np.isnan(c.residual) or c.residual <= 1e-9
    begin = nj.certificates.natural_residual(center, center, x, np.ones(1), radius, b, 1.0, SINE)
    assert np.isnan(begin) or begin > 1e-3


@pytest.mark.parametrize("labels", [1e-310, 1e-160, 1e-20, 1.0, 1e20, 1e150, 1e300])
def test_the_residual_sees_small_and_large_gradients(labels):
    """At the start the gradient is not 0, and nothing but the ball is in its way."""
    params, x = net()
    found = nj.certificates.natural_residual(params, params, x, np.full(N, labels), radius=0.1)
    assert np.isnan(found) or found > 0.01
    assert np.isnan(found) == (labels == 1e-310)
    away = {**params, "w": params["w"] + 0.01}
    found = nj.certificates.natural_residual(away, params, x, np.full(N, labels), radius=10.0)
    assert np.isnan(found) or found > 0.01


@pytest.mark.parametrize("labels", [1e-300, 1e9, 1e100])
def test_solve_kkt_does_not_stop_at_the_start(labels):
    x = np.random.default_rng(0).normal(size=(6, 4))
    s = nj.solvers.solve_kkt(KEY, x, labels * np.ones(6), 4, 0.1, steps=1, progress=False)
    assert not s.converged


@pytest.mark.parametrize("labels", [1e-310, 1e-300, 1e-200, 1e200])
def test_memorize_does_not_take_an_underflow_for_a_solution(labels):
    x = np.random.default_rng(0).normal(size=(6, 4))
    m = nj.memorize(KEY, x, labels * np.sin(x[:, 0]), width=4, radius=0.5, steps=2)
    assert m.status == "not_converged"


def test_a_net_without_output_weights_has_no_nice_region():
    """f = 0 for every w: every point is stationary, with the loss of the labels; L is 0, and so is σ_min."""
    params, x = net()
    center = {"w": params["w"], "v": np.zeros((WIDTH // 2, 2))}
    region = nj.certificates.nice_region(center, x)
    assert (region.holds, region.radius, region.lipschitz) == (False, 0.0, 0.0)


def test_an_infinite_region_is_one_of_a_linear_net():
    linear = nj.activations.Activation(
        "half", lambda z: z / 2, lambda z: jnp.full_like(z, 0.5), 0.5, 0.5, 0.0, 0.0
    )
    center = {"w": np.tile([[1.0, 2.0]], 2), "v": np.ones((2, 1))}
    region = nj.certificates.nice_region(center, np.ones((1, 1)), linear)
    assert region.holds
    assert region.radius == math.inf


HUGE = {"w": np.zeros((D, WIDTH)), "v": np.ones((WIDTH // 2, 1))}


@pytest.mark.parametrize(
    "reason",
    [
        lambda x: nj.certificates.nice_region(HUGE, x).reason,
        lambda x: nj.certificates.kkt(HUGE, HUGE, x, np.ones(1), 1.0).reason,
    ],
)
def test_overflow_is_not_blamed_on_the_activation(reason):
    x = np.full((1, D), 1e160)
    assert reason(x).startswith("the Lipschitz constant of J overflows: rescale x or v")


def test_a_region_below_the_smallest_number_is_said_to_be_one():
    """σ_min(J̃) is 6e-6 while S₂ λ^½ is 2e304."""
    center = {"w": np.array([[10.0, 10.0], [1e-152, 1e-152]]), "v": np.ones((1, 1))}
    region = nj.certificates.nice_region(center, np.array([[1e-4, 1e152], [1e-4, -1e152]]))
    assert not region.holds
    assert region.radius == 0 or "not proven" in region.reason


# pyramidal nets


def scaled(layers, exponents):
    """The problem with x, W_1, W_2 and y times powers of 10."""
    params, x, y = problem(WIDTHS[layers], scale=3.0, second=0.1)
    a, b, c, e = (10.0**exponent for exponent in exponents)
    return params | {"w1": b * params["w1"], "w2": c * params["w2"]}, a * x, e * y


UNITS = [
    (-150, 150, 0, 0),
    (-160, 160, -100, -100),
    (150, -150, 0, 0),
    (-300, 300, 0, 0),
    (0, 0, -300, -300),
    (0, 100, -150, 150),
    (0, 0, 0, 300),
    (-160, 0, 0, -160),
    (-300, 0, 0, 0),
    (0, 140, 0, 0),
]
"""Powers of 10 of x, W_1, W_2 and y."""


@pytest.mark.parametrize("exponents", UNITS)
@pytest.mark.parametrize("layers", [2, 3])
def test_constants_of_theorem_3_2_are_on_the_safe_side(layers, exponents):
    case = scaled(layers, exponents)
    c = nj.certificates.pyramidal(*case, SIGMA)
    with mpmath.workdps(50):
        exact = exact_constants(*case)
        log = {name: mpmath.log10(exact[name]) for name in ("alpha0", "q0", "q1", "max_learning_rate", "r")}
        assert c.paper.log10_alpha <= log["alpha0"]
        assert c.paper.log10_q >= log["q0"]
        assert c.paper.log10_distance >= log["q1"]
        assert c.paper.log10_max_learning_rate <= log["max_learning_rate"]
        assert c.log10_r >= log["r"]
        assert c.condition4 <= exact["condition4"]
        assert c.condition5 <= exact["condition5"]
        assert c.alpha0 <= exact["alpha0"]
        assert c.max_learning_rate <= exact["max_learning_rate"]
        assert c.q0 >= exact["q0"]
        assert c.q1 >= exact["q1"]
        assert c.initial_loss >= exact["initial_loss"]
        assert c.lambda_f <= exact["lambda_f"]
        assert all(mine >= bar for mine, bar in zip(c.lambda_bars, exact["lambda_bars"], strict=True))
        assert all(mine <= low for mine, low in zip(c.lambdas, exact["lambdas"], strict=True))
    for found in (c.paper, c.sharper):
        assert not np.isnan([*found[2:8], *found.radii]).any()
        assert not found.holds or found.learning_rate > 0


def test_numbers_that_overflow_are_named():
    params, x, y = problem((12, 1))
    for case in (
        (params, 1e300 * x, y),
        (params | {"w2": 1e300 * params["w1"][:1].T}, 1e10 * x, y),
        (params, x, np.full_like(y, -1.7e308)),
    ):
        c = nj.certificates.pyramidal(*jax.tree.map(lambda leaf: 1e3 * leaf, case[:2]), case[2], SIGMA)
        assert not c.holds
        assert not c.sharper.holds
        assert not np.isnan([*c.paper[2:8], *c.sharper[2:8], c.condition4, c.condition5]).any()
    c = nj.certificates.pyramidal({"w1": 1e200 * params["w1"], "w2": np.ones((12, 1))}, 1e200 * x, y, SIGMA)
    assert c.reason == "the norms at the start overflow: rescale x, y or the weights"
    assert nj.certificates.pyramidal(params, x, 1e200 * y / y, SIGMA).initial_loss == math.inf


def exact_envelope(begin, radii):
    """The bounds of docs/proofs/pyramidal.md in 50 digits."""
    norm = [mpf(n) + mpf(r) for n, r in zip(begin.norms, radii, strict=True)]
    features, moved, product = [mpf(begin.features[0])], [mpf(0)], mpf(begin.x_frobenius)
    for layer, feature in enumerate(begin.features[1:]):
        moved.append(mpf(begin.features[layer]) * mpf(radii[layer]) + norm[layer] * moved[-1])
        product *= norm[layer]
        features.append(min(mpf(feature) + moved[-1], product))
    smallest = max(mpf(0), mpf(begin.lambda_f) - moved[1])
    for low, radius in zip(begin.smallest[2:], radii[2:], strict=True):
        smallest *= mpf(SIGMA.min_derivative) * max(mpf(0), mpf(low) - mpf(radius))
    tangent = curvature = mpf(0)
    for layer, (n, feature) in enumerate(zip(norm, features, strict=True), start=1):
        before, tangent = tangent, mpmath.sqrt((n * tangent) ** 2 + feature**2)
        curvature = n * curvature + before
        if layer < len(norm):
            curvature += mpf(SIGMA.sup_second_derivative) * tangent**2
    layers = [feature * mpmath.fprod(norm[i:]) for i, feature in enumerate(features, start=1)]
    return smallest**2, layers, tangent, curvature


@pytest.mark.parametrize("seed", range(40))
def test_the_envelope_is_on_the_safe_side_at_every_scale(seed):
    rng = np.random.default_rng(seed)

    def sizes(count):
        return tuple(float(10.0**e) for e in rng.uniform(-300, 300 if seed % 2 else 0, size=count))

    begin = StartNorms(4, (4, 9, 3, 2), sizes(3), sizes(3), sizes(3), sizes(1)[0], sizes(1)[0], sizes(1)[0])
    radii = tuple(1e-3 * size for size in begin.smallest)
    found = sharper.envelope(begin, SIGMA, radii)
    room = 1 + mpf(sharper.SLACK)  # what ``guarantee`` adds for the roundings of sums
    with mpmath.workdps(50):
        alpha, layers, tangent, curvature = exact_envelope(begin, radii)
        assert found.alpha <= alpha * room
        assert all(mine * room >= layer for mine, layer in zip(found.layer, layers, strict=True))
        assert found.jacobian * room >= tangent
        assert found.curvature * room >= curvature
        reach = sharper.travelled(begin, found)
        if alpha > 0:
            lengths = [2 * mpf(begin.residual) * layer / alpha for layer in layers]
            assert all(mine * room**2 >= length for mine, length in zip(reach, lengths, strict=True))


@pytest.mark.parametrize("seed", range(60))
def test_a_guarantee_is_never_below_what_it_bounds(seed):
    rng = np.random.default_rng(seed)
    log_rate, log_eta = -rng.uniform(0.1, [3, 20, 320][seed % 3]), rng.uniform(-300, 300)
    eta = float(10.0**log_eta)
    g = Guarantee(
        True,
        "",
        log_rate - log_eta,
        0.0,
        rng.uniform(-320, 320),
        0.0,
        eta,
        10.0 ** rng.uniform(-300, 300),
        (),
    )
    with mpmath.workdps(400):
        rate = mpf(eta) * mpmath.mpf(10) ** mpf(g.log10_alpha)
        for step in (0, 1, 7, 1000, float(10.0 ** rng.uniform(0, 12))):
            power = mpmath.exp(step * mpmath.log1p(-rate))
            assert g.loss_bound(step) >= power * mpf(g.initial_loss)
            assert g.distance_bound(step) >= mpmath.sqrt(power) * mpmath.mpf(10) ** mpf(g.log10_distance)
        for target in (g.initial_loss / 2, g.initial_loss * 1e-9, fl.NORMAL):
            steps = g.steps_to(target)
            if math.isfinite(steps):
                assert mpmath.exp(steps * mpmath.log1p(-rate)) * mpf(g.initial_loss) <= mpf(target)
                assert target == fl.NORMAL or g.loss_bound(steps) <= target


@pytest.mark.parametrize(
    "exponent", [-1e6, -400.0, -308.0, -307.0, -300.5, -1.0, 0.0, 3.7, 308.1, 308.3, 1e6]
)
def test_powers_of_ten_are_rounded_outward(exponent):
    with mpmath.workdps(50):
        exact = mpmath.mpf(10) ** mpf(exponent)
        assert guarantee.power10_down(exponent) <= exact <= guarantee.power10(exponent)
    assert guarantee.power10_down(exponent) < math.inf
    assert guarantee.power10(exponent) > 0
    assert guarantee.power10(math.nan) == math.inf
    assert guarantee.power10_down(math.nan) == 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_limits_of_the_invariants_are_rounded_outward(dtype):
    values = np.array([1e-300, 1e-40, 0.1, 1 / 3, 7.7e30, 1e300])
    above, below = (limit(values, dtype) for limit in (invariants._above, invariants._below))
    assert above.dtype == below.dtype == dtype
    assert np.all(np.asarray(above, float) >= values)
    assert np.all(np.asarray(below, float) <= values)
