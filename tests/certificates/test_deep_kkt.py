"""Theorems 1 (iv) and 2 for nets of any depth: the nice region, KKT points of loss 0, and the loss at any point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets.lipschitz import lipschitz
from narrow_jax.certificates.narrow_nets.theorem2_loss_bound import residual_bound
from narrow_jax.jacobian import Net

SHAPES = [  # samples, inputs, outputs, units of the layers of a half, activation
    (2, 2, 1, (3, 2), "tanh"),
    (1, 1, 1, (1, 1), "sin"),
    (2, 3, 2, (3,), "sigmoid"),
    (1, 2, 1, (1, 1, 1), "sin"),
    (3, 2, 1, "one hidden layer", "tanh"),
    (1, 1, 1, "one hidden layer", "sin"),
]
POINTS = 60
"""A shape. With 170, 1,020 in all: the largest ratio is 1 − 2e-10."""


def start(shape, seed, scale=1.0):
    _, d, k, widths, _ = shape
    key, cone = jax.random.key(seed), {"inputs": d, "outputs": k, "dtype": jnp.float64}
    with jax.enable_x64(True):
        if isinstance(widths, str):
            center = nj.initializers.mirrored_lecun(key, width=4 * d + 2, **cone)
            center["w"] = scale * center["w"]
        else:
            center = nj.initializers.mirrored_mlp(key, widths=widths, scale=scale, **cone)
        return jax.tree.map(np.asarray, center)


def values(params, x, activation):
    apply = nj.models.pairwise_apply if "w" in params else nj.models.pairwise_mlp_apply
    with jax.enable_x64(True):
        return np.asarray(apply(params, x, activation))


def moved(center, rng, distance):
    """The hidden weights at that distance in a random direction, v scaled and perturbed."""
    hidden = {name: leaf for name, leaf in center.items() if name != "v"}
    step = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), hidden)
    size = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(step)))
    w = jax.tree.map(lambda leaf, change: leaf + change * distance / size, hidden, step)
    growth = rng.choice([1.0, 1 / min(distance, 1.0)]) * 10 ** rng.uniform(-1, 1)
    return {**w, "v": center["v"] * growth * np.exp(0.3 * rng.normal(size=center["v"].shape))}


def adversarial(shape, seed):
    """Weights, start, data, and labels: any, near what the net gives, or beyond it, where v and w push outward."""
    rng = np.random.default_rng(seed)
    n, d, k, _, activation = shape
    center = start(shape, seed % 7, scale=10 ** rng.uniform(-0.5, 0.7))
    if seed % 5 == 0:  # hardly mirrored any more
        center = jax.tree.map(lambda leaf: leaf * (1 + 1e-9 * rng.normal(size=leaf.shape)), center)
    x = rng.normal(size=(n, d)) * 10 ** rng.uniform(-1, 1)
    params = moved(center, rng, 10 ** rng.uniform(-10, 1))
    f = values(params, x, activation)
    noise = rng.normal(size=(n, k))
    y = [noise, f + noise * 10 ** rng.uniform(-8, 0), f * (1 + 10 ** rng.uniform(-8, 0))][rng.integers(3)]
    return params, center, x, y


def parts(params, center, x, y, activation):
    """σ_min by the dense SVD, the net, the start with the same v, and ‖f − y‖."""
    net = Net.of(params, activation)
    first = Net.of({**center, "v": params["v"]}, activation)
    with jax.enable_x64(True):
        J = np.asarray(net.jacobian(x).dense())
    values_of_J = np.linalg.svd(J, compute_uv=False)
    sigma = values_of_J[-1] - 1e-13 * values_of_J[0] if J.shape[0] <= J.shape[1] else 0.0
    return net, first, sigma, np.linalg.norm(values(params, x, activation) - y)


def distance(net, first):
    return np.sqrt(
        sum(
            np.sum((a - b) ** 2)
            for half, other in zip(net.halves, first.halves, strict=True)
            for a, b in zip(half, other, strict=True)
        )
    )


def ratios(shape, points, weaker=1.0):
    """‖f − y‖ over its bound where there is one; L divided by ``weaker``."""
    found = []
    for seed in range(points):
        params, center, x, y = adversarial(shape, seed)
        net, first, sigma, size = parts(params, center, x, y, shape[-1])
        slope = lipschitz(first, x, distance(net, first) * (1 + 1e-9)) / weaker
        bound = residual_bound(net, first, x, y, sigma, slope)
        found += [size / bound] if np.isfinite(bound) else []
    return np.array(found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_loss_is_above_its_bound(shape):
    found = ratios(shape, POINTS)
    assert len(found) > POINTS / 3
    assert found.max() <= 1


def test_half_of_the_lipschitz_constant_is_too_little():
    """f = 2 sin t at w = (t, −t), t > π/2 and y < f: a KKT point of any loss, on the sphere."""
    x, y, t = np.ones((1, 1)), np.zeros((1, 1)), 2.5
    center, params = ({"w": np.array([[a, -a]]), "v": np.ones((1, 1))} for a in (0.0, t))
    net, first, sigma, size = parts(params, center, x, y, "sin")
    slope = lipschitz(first, x, distance(net, first))
    assert residual_bound(net, first, x, y, sigma, slope) == np.inf
    assert residual_bound(net, first, x, y, sigma, slope / 2) < 1e-12 < size


def test_a_start_that_is_not_mirrored_costs_what_it_gives():
    """σ(w) = sin at w⁰ = 1 and w = ½, y < f: a KKT point of loss > 0, for which the mirrored bound would be 0."""
    x, y = np.ones((1, 1)), np.full((1, 1), 0.1)
    center, params = ({"w": np.full((1, 1), a), "v": np.ones((1, 1))} for a in (1.0, 0.5))
    c = nj.certificates.kkt(params, center, x, y, 0.5, activation="sin", zeta=None)
    assert c.residual > 0
    assert (c.holds, c.loss_bound) == (False, np.inf)
    assert c.distance == pytest.approx(0.5)
    assert c.sigma > c.lipschitz * c.distance / 2  # all that a mirrored start would need
    # one that gives 0 is as good as a mirrored one: the net at w⁰ = 0, moved by a little
    center["w"], params["w"] = np.zeros((1, 1)), np.full((1, 1), 1e-3)
    c = nj.certificates.kkt(params, center, x, y, 0.5, activation="sin", zeta=None)
    assert c.loss <= c.loss_bound < np.inf
    assert "v is free" in c.reason


# --- Theorem 2 --------------------------------------------------------------------------------------------


def solved(seed, radius, widths=(4, 4), **options):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=4) * [0.03, 0.3, 1][seed % 3]
    s = nj.solvers.solve_kkt(jax.random.key(seed), x, y, radius=radius, widths=widths, **options)
    return x, y, s


@pytest.mark.parametrize("seed", range(8))
def test_certified_kkt_points_of_deep_pairs_have_loss_zero(seed):
    """Of 100 such runs, with four radii from 3e-4 to 1e-2, 96 are certified, and all have loss below 1e-16."""
    radius = [3e-4, 1e-3, 3e-3, 1e-2][seed % 4]
    x, y, s = solved(seed, radius)
    c = nj.certificates.kkt(s.params, s.center, x, y, radius)
    assert s.converged
    assert c.here
    assert c.holds
    assert c.reason.startswith("a KKT point here has loss exactly 0")
    assert (c.everywhere, c.threshold) == (False, 0.0)
    assert c.distance <= radius * (1 + 1e-9)
    assert s.loss <= 1e-16
    assert c.loss <= c.loss_bound < 1e-12


def test_a_large_ball_proves_nothing():
    x, y, s = solved(0, 1e-3)
    for radius in (100.0, np.inf):
        c = nj.certificates.kkt(s.params, s.center, x, y, radius)
        assert not c.holds
        assert "loss 0 is not proven" in c.reason
        assert c.loss <= c.loss_bound < 1e-12  # which asks how far w is, not how large the ball


SILENT = {
    "not mirrored": (
        {},
        lambda c: {**c, "plus": {**c["plus"], "w1": 2 * c["plus"]["w1"]}},
        "is not mirrored",
    ),
    "no ball": ({"radius": 0.0}, lambda c: c, "w is frozen"),
    "free v": ({"zeta": None}, lambda c: c, "v is free"),
    "no pair": ({}, lambda c: {**c["plus"], "w3": c["v"]}, "the net is not pairwise"),
}


@pytest.mark.parametrize(("options", "change", "reason"), SILENT.values(), ids=SILENT.keys())
def test_where_theorem_2_says_nothing(options, change, reason):
    x, y = np.random.default_rng(0).normal(size=(4, 3)), np.ones(4)
    center = change(start((4, 3, 1, (4, 4), "tanh"), 0))
    c = nj.certificates.kkt(center, center, x, y, **({"radius": 1e-3} | options))
    assert not c.holds
    assert reason in c.reason
    assert c.loss == pytest.approx(np.sum((net_values(center, x) - 1) ** 2) / 2)
    assert (c.residual > 0) == (options != {"radius": 0.0})  # f = 0 whatever v is
    assert c.loss <= c.loss_bound  # at w⁰ it is (‖Jᵀr‖/σ_min)²/2, for any net


def net_values(params, x):
    if "w1" in params:
        with jax.enable_x64(True):
            return np.asarray(nj.models.mlp_apply(params, x, "tanh"))[:, 0]
    return values(params, x, "tanh")[:, 0]


def test_labels_that_no_net_has():
    x, y = np.ones((2, 3)), np.array([0.0, 1.0])
    center = start((2, 3, 1, (4, 4), "tanh"), 0)
    c = nj.certificates.kkt(center, center, x, y, 1e-3)
    assert not c.holds
    assert "samples 0 and 1 are equal" in c.reason
    assert c.loss_bound == np.inf
    x[1] = 0
    assert "sample 1 is 0" in nj.certificates.kkt(center, center, x, y, 1e-3).reason
    # σ(0) ≠ 0: a deep pair can give anything at 0
    assert "sample" not in nj.certificates.kkt(center, center, x, y, 1e-3, activation="sigmoid").reason


def test_zeros_in_v_leave_the_rank_to_the_others():
    x, y = np.random.default_rng(0).normal(size=(3, 3)), np.ones(3)
    center = start((3, 3, 1, (4, 4), "tanh"), 0)
    params = {**center, "v": center["v"] * np.array([[1.0], [0.0], [1.0], [0.0]])}
    c = nj.certificates.kkt(params, center, x, y, 1e-4)
    assert c.sigma > 0
    dead = nj.certificates.kkt({**center, "v": 0 * center["v"]}, center, x, y, 1e-4)
    assert (dead.sigma, dead.holds, dead.loss_bound) == (0.0, False, np.inf)


def test_relu_has_no_theorem():
    x, y = np.random.default_rng(0).normal(size=(3, 3)), np.ones(3)
    center = start((3, 3, 1, (4, 4), "tanh"), 0)
    c = nj.certificates.kkt(center, center, x, y, 1e-4, activation=("tanh", "relu"))
    assert not c.holds
    assert c.reason == "σ' of relu jumps: J is not Lipschitz and the theorem does not apply"
    region = nj.certificates.nice_region(center, x, ("tanh", "relu"))
    assert not region.holds
    assert "σ' of relu jumps" in region.reason


CENTER = {
    "plus": {"w1": np.ones((3, 4)), "w2": np.ones((4, 4))},
    "minus": {"w1": np.ones((3, 4)), "w2": np.ones((4, 4))},
    "v": np.ones((4, 1)),
}
BAD = {
    "shapes": (
        {**CENTER, "v": np.ones((4, 2))},
        CENTER,
        {},
        r"params has the shapes .*\(4, 2\).*; expected .*as the center has them",
    ),
    "another net": (
        {"w": np.ones((3, 8)), "v": np.ones((4, 1))},
        CENTER,
        {},
        r"params is \['v', 'w'\]; expected",
    ),
    "bias": (CENTER, {**CENTER, "bias": np.ones(4)}, {}, "expected a dict with the leaves"),
    "halves": (CENTER, {**CENTER, "minus": {"w1": np.ones((3, 4))}}, {}, "minus is not like plus"),
    "NaN": ({**CENTER, "v": np.full((4, 1), np.nan)}, CENTER, {}, "v has 4 non-finite entries"),
    "inputs": (CENTER, CENTER, {"x": np.ones((2, 5))}, r"x has shape \(2, 5\); expected \(n, 3\)"),
    "outputs": (CENTER, CENTER, {"y": np.ones((2, 2))}, "y has 2 columns and v 1"),
    "activations": (CENTER, CENTER, {"activation": ("tanh",) * 3}, "activation has 3 entries; expected 2"),
    "radius": (CENTER, CENTER, {"radius": -1.0}, "radius is -1.0"),
}


@pytest.mark.parametrize("certificate", [nj.certificates.natural_residual, nj.certificates.kkt])
@pytest.mark.parametrize(("params", "center", "options", "message"), BAD.values(), ids=BAD.keys())
def test_what_does_not_fit(certificate, params, center, options, message):
    problem = {"x": np.eye(2, 3), "y": np.ones(2), "radius": 0.1} | options
    with pytest.raises(ValueError, match=message):
        certificate(params, center, **problem)


# --- Theorem 1 (iv) ---------------------------------------------------------------------------------------


def smallest(params, x, activation="tanh"):
    with jax.enable_x64(True):
        J = np.asarray(Net.of(params, activation).jacobian(x).dense())
    return np.linalg.svd(J, compute_uv=False)[-1]


def deep_net(kind):
    pair = start((4, 3, 1, (4, 4), "tanh"), 0)
    return {
        "pair": pair,
        "two outputs": start((3, 3, 2, (4, 4), "tanh"), 1),
        "no pair": {**pair["plus"], "w3": pair["v"]},
    }[kind]


@pytest.mark.parametrize("kind", ["pair", "two outputs", "no pair"])
def test_no_singular_jacobian_in_the_region_of_a_deep_net(kind):
    center, x = deep_net(kind), np.random.default_rng(0).normal(size=(3, 3))
    region = nj.certificates.nice_region(center, x)
    assert region.holds
    assert not region.every_v
    assert region.reason.endswith("has loss 0, for the given v")
    net = Net.of(center, "tanh")
    truth = smallest(center, x)
    assert truth * (1 - 1e-6) <= region.sigma <= truth * (1 + 1e-12)
    # nearly the largest: a little farther L(r)·r exceeds σ_min
    assert region.radius * lipschitz(net, x, region.radius) <= truth * (1 + 1e-12)
    assert 1.01 * region.radius * lipschitz(net, x, 1.01 * region.radius) > truth
    rng = np.random.default_rng(1)
    outer = "v" if "v" in center else "w3"
    for _ in range(20):
        hidden = {key: leaf for key, leaf in center.items() if key != outer}
        step = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), hidden)
        size = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(step)))
        step = jax.tree.map(lambda leaf, size=size: leaf * region.radius / size, step)
        moved = jax.tree.map(np.add, hidden, step)
        assert smallest({**moved, outer: center[outer]}, x) > 0


def test_the_region_of_a_standard_net_is_for_every_v():
    """Form (1): v and −v, whatever they become; J(w⁰; v) at v = 1, a column of the pair's J for each of the pair's."""
    x = np.random.default_rng(0).normal(size=(6, 4))
    pair = start((6, 4, 1, "one hidden layer", "tanh"), 0)
    form = {"w": pair["w"], "v": np.concatenate([pair["v"], -pair["v"]])}
    region, expected = nj.certificates.nice_region(form, x), nj.certificates.nice_region(pair, x)
    assert region.every_v
    assert region.radius == pytest.approx(expected.radius)
    plain = nj.initializers.lecun(jax.random.key(0), inputs=4, width=4)
    assert nj.certificates.nice_region(plain, x).holds
    assert nj.certificates.nice_region({**plain, "v": 0 * plain["v"]}, x).holds  # v is set to 1 all the same


def test_the_region_of_a_net_with_one_layer_in_two_trees():
    x = np.random.default_rng(0).normal(size=(6, 4))
    pair = start((6, 4, 1, "one hidden layer", "tanh"), 0)
    plus, minus = ({"w1": w} for w in np.split(pair["w"], 2, axis=1))
    region = nj.certificates.nice_region({"plus": plus, "minus": minus, "v": pair["v"]}, x)
    assert region.every_v
    assert region.radius == pytest.approx(nj.certificates.nice_region(pair, x).radius)
