"""The Lipschitz constant of the Jacobian: never below what is measured, and near it where that can be."""

import itertools
import math

import deep_nets
import jax
import mpmath
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import lipschitz as module
from narrow_jax.certificates.narrow_nets.constants import input_norm
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.jacobian import Net
from narrow_jax.linalg import outward

WIDTHS = {1: (3,), 2: (2, 3), 3: (3, 1, 2), 4: (2, 2, 3, 1), 5: (1, 2, 2, 1, 2)}
COUNTS = {1: 76, 2: 54, 3: 22, 4: 9, 5: 7}
"""Of each kind: 1,008 nets in all."""
KINDS = [
    deep_nets.Kind(WIDTHS[depth], 1 + (depth + paired) % 3, activation, bool(paired), bool(outer))
    for depth in WIDTHS
    for paired in (0, 1)
    for outer, activation in ((0, "tanh"), (1, "softplus"), (paired, "sin"))
]


def named(kind):
    return f"{'pair' if kind.paired else 'net'}{kind.widths}, k={kind.outputs}, {kind.activation}{', V' * kind.outer}"


def of(net, kind, index):
    return Net.of(deep_nets.params(net, index), kind.activation)


def measured(seed, kind):
    """Measured over proven, for the nets of a kind."""
    rng = np.random.default_rng(seed)
    net, x = deep_nets.draw(rng, kind, COUNTS[len(kind.widths)], samples=3, inputs=2)
    radius = 10 ** rng.uniform(-4, 0.5, (len(x), 1))
    found = deep_nets.steepest(rng, kind, net, x, radius, steps=50)
    proven = [lipschitz(of(net, kind, i), x[i], float(r), outer=kind.outer) for i, (r,) in enumerate(radius)]
    return found / np.array(proven)


def test_a_thousand_bounds_hold_and_are_near_the_steepest_that_is_found(unchecked):
    ratios = {named(kind): measured(seed, kind) for seed, kind in enumerate(KINDS)}
    assert {name: largest for name, found in ratios.items() if (largest := np.max(found)) > 1} == {}
    together = np.concatenate(list(ratios.values()))
    assert len(together) >= 1000
    assert np.median(together) >= 0.01  # 0.33
    assert np.max(together) >= 0.9  # 0.98


@pytest.mark.parametrize("kind", KINDS[::5], ids=named)
def test_jacobians_of_the_search_are_those_of_the_library(kind, x64):
    net, x = deep_nets.draw(np.random.default_rng(1), kind, 2, samples=3, inputs=2)
    ours = deep_nets.jacobian(net, x, kind.activation, kind.outer)[1]
    params = deep_nets.params(net, 1)
    if not kind.paired:
        wrt = None if kind.outer else [name for name in params if name != f"w{len(params)}"]
        J = nj.jacobian.mlp(params, x[1], kind.activation, wrt=wrt).dense()
    else:
        J = nj.jacobian.pairwise_mlp(params, x[1], kind.activation).dense()
        plus, minus, *_ = np.split(ours, [J.shape[1] // 2, J.shape[1]], axis=1)
        ours = np.concatenate([minus, plus], axis=1)
    np.testing.assert_allclose(ours, np.asarray(J), rtol=1e-12, atol=1e-13 * np.max(np.abs(ours)))


def chain(depth, weight=300.0):
    """A sine net of width 1 for x = 1: σ' near 1 in all layers but the last, which has |σ''| = 1 and decides."""
    z, weights = math.pi / 2, []
    for _ in range(depth - 1):
        weights.append(weight)
        z = math.asin(z / weight)
    return [[np.full((1, 1, 1), w) for w in (z, *weights)]], np.ones((1, 1, 1))


@pytest.mark.parametrize("depth", range(1, 6))
def test_nets_of_width_1_attain_it(depth):
    kind = deep_nets.Kind((1,) * depth, 1, "sin", paired=False, outer=False)
    net, x = chain(depth), np.ones((1, 1, 1))
    center, step = deep_nets.flat(net), np.zeros((1, depth + 1))
    step[0, 0] = 1e-3 * center[0, 0]
    first, second = (
        deep_nets.jacobian(deep_nets.unflat(center + sign * step, net), x, "sin", outer=False)[0]
        for sign in (-1, 1)
    )
    slope = np.linalg.norm(first - second, 2) / np.linalg.norm(2 * step)
    assert 0.97 <= slope / lipschitz(of(net, kind, 0), x[0], radius=0.0) <= 1


def test_a_pair_that_shares_v_attains_root_2_more():
    """At V = 0 and w = 0 the Jacobian moves with V alone, by √2 of one half."""
    zero, x = np.zeros((1, 1)), np.full((1, 1), 2.0)
    kind = deep_nets.Kind((1,), 1, "tanh", paired=True, outer=True)
    net = ([[zero[None]], [zero[None]]], zero[None])
    moved = (net[0], np.full((1, 1, 1), 1e-6))
    first, second = (deep_nets.jacobian(each, x[None], "tanh", True)[0] for each in (net, moved))
    slope = np.linalg.norm(first - second, 2) / 1e-6
    assert slope == pytest.approx(math.sqrt(2) * 2.0)
    bound = lipschitz(of(net, kind, 0), x, radius=0.0, outer=True)
    assert slope * (1 - 1e-12) <= bound <= slope * (1 + 1e-8)
    one = Net.of({"w1": zero, "w2": zero}, "tanh")  # "the larger half" is exceeded
    assert lipschitz(one, x, radius=0.0, outer=True) < 0.75 * slope


def test_bounds_of_the_centre_do_not_hold_on_the_ball():
    kind = deep_nets.Kind((2, 2), 1, "sin", paired=False, outer=False)
    rng = np.random.default_rng(0)
    net, x = deep_nets.draw(rng, kind, 20, samples=3, inputs=2)
    net = ([[0.1 * w / np.max(np.abs(w)) for w in net[0][0]]], net[1])
    found = deep_nets.steepest(rng, kind, net, x, np.full((20, 1), 2.0), steps=60)
    for radius, exceeded in ((0.0, True), (2.0, False)):
        bounds = np.array([lipschitz(of(net, kind, i), x[i], radius) for i in range(20)])
        assert np.any(found > bounds) == exceeded


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("radius", [0.0, 0.3, math.inf])
def test_one_hidden_layer_is_the_form_of_theorem_1(paired, radius):
    rng = np.random.default_rng(3)
    x, v, sigma = rng.normal(size=(9, 4)), rng.normal(size=(5, 2)), nj.activations.get("tanh")
    net = Net.of({"w": rng.normal(size=(4, 10 if paired else 5)), "v": v}, sigma)
    row = outward.row_norms(v).max()
    assert lipschitz(net, x, radius) == nj.linalg.rounding.product_up(
        sigma.sup_second_derivative, row, input_norm(x)
    )
    with mpmath.workdps(40):
        rows = mpmath.matrix((np.linalg.norm(x, axis=1, keepdims=True) * x).tolist())
        exact = sigma.sup_second_derivative * row * max(mpmath.svd_r(rows, compute_uv=False))
        assert exact <= lipschitz(net, x, radius) * (1 + 1e-14) <= exact * (1 + 1e-8)


def deep(widths=(30, 30), n=400, d=20, scale=1.0, activation="tanh"):
    rng = np.random.default_rng(0)
    dims = [d, *widths]
    half = {
        f"w{i + 1}": scale * rng.normal(size=(a, b)) / math.sqrt(a)
        for i, (a, b) in enumerate(itertools.pairwise(dims))
    }
    params = {"plus": half, "minus": half, "v": rng.normal(size=(dims[-1], 1)) / math.sqrt(dims[-1])}
    return Net.of(params, activation), rng.normal(size=(n, d))


def test_layers_together_are_sharper_than_sample_by_sample():
    net, x = deep()
    halves = [module._half(net, net.halves[0], x, 0.1, False)]
    samples = module._by_samples(halves, 1.0, False)
    assert lipschitz(net, x, 0.1) < samples / 3  # 3.6


def test_larger_balls_and_a_moving_v_have_larger_bounds():
    net, x = deep((4, 3, 3), n=5, d=3)
    bounds = [lipschitz(net, x, radius, outer) for outer in (False, True) for radius in (0.0, 1e-3, 0.1, 1.0)]
    assert bounds[:4] == sorted(bounds[:4])
    assert bounds[4:] == sorted(bounds[4:])
    assert all(fixed < moving for fixed, moving in zip(bounds[:4], bounds[4:], strict=True))


def test_equal_halves_are_bounded_as_any():
    net, x = deep((4, 3), n=5, d=3)
    mixed = net._replace(halves=(net.halves[0], tuple(np.nextafter(w, 9) for w in net.halves[1])))
    for outer in (False, True):
        assert lipschitz(mixed, x, 0.1, outer) == pytest.approx(lipschitz(net, x, 0.1, outer), rel=1e-2)


def test_nothing_is_known_without_a_ball_or_with_a_kink():
    net, x = deep((4, 3), n=5, d=3)
    assert lipschitz(net, x, math.inf) == math.inf
    assert lipschitz(deep((4,), n=5, d=3)[0], x, math.inf, outer=True) == math.inf
    assert lipschitz(deep((4, 3), n=5, d=3, activation="relu")[0], x, 0.1) == math.inf
    growing = nj.activations.Activation(
        "square", jax.numpy.square, lambda z: 2 * z, math.inf, -math.inf, sup_second_derivative=2.0
    )
    assert lipschitz(net._replace(sigmas=(growing,) * 2), x, 0.1) == math.inf
    assert lipschitz(net._replace(halves=(net.halves[0][:1],) * 2, sigmas=(growing,)), x, math.inf) < math.inf


def test_what_is_not_computed_to_a_stated_error_is_bounded_by_norms():
    """gelu states no error of its values: σ(0) = 0 bounds ‖a‖ by τ‖W‖‖x‖."""
    net, x = deep((4, 3), n=5, d=3, activation="gelu")
    assert 0 < lipschitz(net, x, 0.1) < math.inf


@pytest.mark.parametrize("a", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_scales_keep_upper_bounds(a):
    net, x = deep((3, 2), n=4, d=2)
    plain = lipschitz(net, x, 0.1)
    with mpmath.workdps(30):  # fixed, V enters J as a factor
        assert lipschitz(net._replace(v=a * net.v), x, 0.1) >= mpmath.mpf(a) * plain * (1 - 1e-9)
    scaled = net._replace(halves=tuple((a * first, second) for first, second in net.halves))
    for outer in (False, True):
        bound = lipschitz(scaled, x, 0.0, outer)
        assert bound > 0
        assert lipschitz(scaled, x, 0.1, outer) >= bound
    if a < 1:  # all but W_1 = 0
        assert lipschitz(scaled, x, 0.1) >= 0.99 * lipschitz(
            net._replace(halves=tuple((0 * first, second) for first, second in net.halves)), x, 0.1
        )


def test_zero_is_exact():
    net, x = deep((3, 2), n=4, d=2)
    assert lipschitz(net, 0 * x, 0.1) == 0
    assert lipschitz(net._replace(v=0 * net.v), x, 0.1) == 0
    assert lipschitz(net._replace(v=0 * net.v), x, 0.1, outer=True) > 0


@pytest.mark.parametrize(
    ("radius", "columns", "value", "said"),
    [
        (-1.0, 3, 1.0, "radius is -1.0; expected a number ≥ 0"),
        (math.nan, 3, 1.0, "radius is nan; expected a number ≥ 0"),
        (0.1, 2, 1.0, r"x has shape \(5, 2\); expected \(n, 3\)"),
        (0.1, 3, math.nan, "x has 15 non-finite entries"),
    ],
)
def test_bad_inputs(radius, columns, value, said):
    net, _ = deep((4, 3), n=5, d=3)
    with pytest.raises(ValueError, match=said):
        lipschitz(net, np.full((5, columns), value), radius)


def test_bad_types(unchecked):
    net, x = deep((4, 3), n=5, d=3)
    with pytest.raises(TypeError, match="radius is 'far'; expected a number"):
        lipschitz(net, x, "far")
    with pytest.raises(TypeError, match="x has dtype complex128"):
        lipschitz(net, x + 1j, 0.1)
