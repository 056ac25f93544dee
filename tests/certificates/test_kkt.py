"""Problem (7): KKT points, the residual that measures them, and when their loss is proven to be 0."""

import jax
import numpy as np
import pytest
import scipy.optimize

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets import problem7
from narrow_jax.solvers import solve_kkt
from narrow_jax.solvers.descent import Descent

KEY = jax.random.key(0)
N, D, WIDTH = 20, 4, 4
FEW = 6
"""So many samples the net is wide enough for; N are too many."""


def problem(samples=N):
    """N samples of which the later ones are 0 with label 0: every pairwise net fits them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, D)), rng.normal(size=N)
    x[samples:], y[samples:] = 0, 0
    return x, y


def solve(radius, samples=N, width=WIDTH, **options):
    x, y = problem(samples)
    return x, y, solve_kkt(KEY, x, y, width, radius, **options)


def start(**options):
    return nj.initializers.mirrored_lecun(KEY, inputs=D, width=WIDTH, **options)


def feasible(s, radius, zeta=1e-3, kappa=np.inf):
    w = np.linalg.norm(s.params["w"] - s.center["w"]) <= radius * (1 + 1e-12) + 1e-14
    v = s.params["v"]
    return w and (v >= zeta * (1 - 1e-12)).all() and v.max() <= kappa * v.min() * (1 + 1e-12)


@pytest.mark.parametrize("radius", [0.1, 1.0, 1000.0])
def test_wide_enough_ends_at_loss_zero(radius):
    x, y, s = solve(radius, FEW)
    assert s.converged
    assert s.residual <= 1e-8
    assert s.loss <= 1e-14
    assert feasible(s, radius)
    assert nj.certificates.natural_residual(s.params, s.center, x, y, radius) <= 1e-7


@pytest.mark.parametrize("radius", [0.1, 1.0])
def test_too_narrow_ends_at_a_kkt_point_with_positive_loss(radius):
    _, _, s = solve(radius)
    assert s.converged
    assert s.loss > 1e-4
    assert feasible(s, radius)


@pytest.mark.parametrize("radius", [0.1, 1000.0])
def test_standard_net_with_a_ball(radius):
    _, _, s = solve(radius, model="standard")
    assert s.converged
    assert np.linalg.norm(s.params["w"] - s.center["w"]) <= radius * (1 + 1e-12)


def test_ratio_is_respected():
    _, _, s = solve(0.3, FEW, kappa=2.0)
    assert s.converged
    assert feasible(s, 0.3, kappa=2.0)


def test_below_the_threshold_every_kkt_point_has_loss_zero():
    x, y, s = solve(0.1, FEW, kappa=2.0)
    x, y = x[:FEW], y[:FEW]
    threshold = nj.certificates.kkt(s.center, s.center, x, y, 1.0, kappa=2.0).threshold
    assert threshold == pytest.approx(nj.certificates.nice_region(s.center, x).radius / 2, rel=1e-9)
    for fraction in (0.1, 0.9):
        _, _, s = solve(fraction * threshold, FEW, kappa=2.0)
        c = nj.certificates.kkt(s.params, s.center, x, y, fraction * threshold, kappa=2.0)
        assert c.everywhere
        assert c.holds
        assert "every KKT point" in c.reason
        assert s.converged
        assert s.loss <= 1e-14


CLASHES = {
    "equal": (lambda x: x[0], "samples 0 and 1 are equal and their labels"),
    "zero": (lambda x: 0 * x[0], "sample 1 is 0 and its label is not"),
}


def clash(twin):
    """Labels 1 and −1 of equal samples, which cost every net at least 1, or −1 of a zero sample, which costs ½."""
    x, y = problem(FEW)
    x, y = x[:FEW], y[:FEW]
    x[1], y[0], y[1] = twin(x), 1, -1
    return x, y, start(kappa=2.0)


@pytest.mark.parametrize(("twin", "reason"), CLASHES.values(), ids=CLASHES.keys())
def test_nothing_is_proven_of_labels_that_no_net_has(twin, reason):
    x, y, center = clash(twin)
    c = nj.certificates.kkt(center, center, x, y, 1e-3, kappa=2.0)
    assert (c.holds, c.here, c.everywhere) == (False, False, False)
    assert c.reason.startswith(reason)
    assert c.loss == pytest.approx(np.sum(y**2) / 2)
    assert c.residual > 0
    x, y = np.delete(x, 1, axis=0), np.delete(y, 1)
    assert nj.certificates.kkt(center, center, x, y, 1e-3, kappa=2.0).everywhere


@pytest.mark.parametrize(("twin", "reason"), CLASHES.values(), ids=CLASHES.keys())
def test_nice_region_depends_on_the_labels_of_equal_and_zero_samples(twin, reason):
    x, y, center = clash(twin)
    region = nj.certificates.nice_region(center, x)
    assert region.holds
    assert "provided that equal samples have equal labels and zero samples the label 0" in region.reason
    refuted = nj.certificates.nice_region(center, x, y=y)
    assert (refuted.holds, refuted.radius) == (False, 0.0)
    assert refuted.reason.startswith(reason)
    learned = nj.certificates.nice_region(center, x, y=np.full(FEW, 1.0 * x[1].any()))
    assert learned.radius == region.radius
    assert learned.reason.endswith("has loss 0, for every v without zeros")
    with pytest.raises(ValueError, match="y has 2 columns and v 1"):
        nj.certificates.nice_region(center, x, y=np.zeros((FEW, 2)))


def test_equal_samples_with_equal_labels_count_once():
    x, y = problem(FEW)
    x, y, center = x[:FEW], y[:FEW], start(kappa=2.0)
    once = nj.certificates.kkt(center, center, x, y, 1e-3, kappa=2.0)
    twice = nj.certificates.kkt(center, center, np.tile(x, (2, 1)), np.tile(y, 2), 1e-3, kappa=2.0)
    assert twice.everywhere
    assert twice.threshold == once.threshold


def test_nothing_is_proven_far_above_the_threshold():
    x, y, s = solve(10.0, FEW)
    c = nj.certificates.kkt(s.params, s.center, x[:FEW], y[:FEW], 10.0)
    assert not c.holds
    assert "loss 0 is not proven" in c.reason


def test_residual_agrees_with_an_independent_optimality_check():
    """At the solver's point no feasible direction of a generic solver lowers the linearised loss."""
    x, y, s = solve(0.1, kappa=4.0)
    center = s.center["w"].ravel()
    size = center.size

    def loss(vector):
        w, v = vector[:size].reshape(s.params["w"].shape), vector[size:].reshape(s.params["v"].shape)
        f = (np.tanh(x @ w[:, :2]) - np.tanh(x @ w[:, 2:])) @ v
        return np.sum((f[:, 0] - y) ** 2) / 2

    start = np.concatenate([s.params["w"].ravel(), s.params["v"].ravel()])
    constraints = [
        {"type": "ineq", "fun": lambda p: 0.1**2 - np.sum((p[:size] - center) ** 2)},
        {"type": "ineq", "fun": lambda p: p[size:] - 1e-3},
        {"type": "ineq", "fun": lambda p: 4 * p[size:].min() - p[size:].max()},
    ]
    found = scipy.optimize.minimize(loss, start, method="SLSQP", constraints=constraints)
    assert loss(start) == pytest.approx(s.loss, rel=1e-9)
    assert found.fun >= s.loss * (1 - 1e-4)


def test_residual_is_large_away_from_kkt_points():
    x, y, s = solve(0.1, FEW)
    params = {"w": s.params["w"], "v": 1.1 * s.params["v"]}
    assert nj.certificates.natural_residual(params, s.center, x, y, 0.1) > 1e-2


def test_radius_zero_freezes_w():
    _, _, s = solve(0.0, FEW)
    np.testing.assert_array_equal(s.params["w"], s.center["w"])
    c = nj.certificates.kkt(s.params, s.center, *problem(FEW), 0.0, kappa=2.0)
    assert c.residual <= 1e-8
    assert c.loss > 1
    assert not c.holds
    assert c.reason == "w is frozen, since ε = 0: Theorem 2 does not speak of it"


def test_loss_never_rises():
    _, _, s = solve(0.1)
    assert (np.diff(s.history["loss"]) <= 1e-9 * s.history["loss"][0]).all()


def test_standard_nets_and_plain_starts_get_no_theorem():
    x, y, s = solve(1.0, model="standard")
    c = nj.certificates.kkt(s.params, s.center, x, y, 1.0, zeta=None)
    assert not c.holds
    assert "v is free" in c.reason
    rng = np.random.default_rng(0)
    plain = {"w": rng.normal(size=s.params["w"].shape), "v": np.ones((2, 1))}
    c = nj.certificates.kkt(plain, plain, x, y, 1.0)
    assert not c.holds
    assert "the start is not mirrored" in c.reason


BAD = {
    "radius": ({"radius": -1.0}, "expected a number ≥ 0"),
    "width": ({"width": 5}, "expected an even number"),
    "zeta": ({"zeta": 0.0}, "zeta is 0.0"),
    "kappa": ({"kappa": 0.5}, "kappa is 0.5"),
    "model": ({"model": "pairwize"}, "did you mean 'pairwise'"),
    "neither": ({"width": None}, "expected width, of a net with one hidden layer, or widths"),
    "both": ({"widths": (3, 3)}, r"width is 4, widths is \(3, 3\)"),
    "standard": (
        {"width": None, "widths": (3, 3), "model": "standard"},
        "model is 'standard'; expected width",
    ),
    "scale": ({"weight_scale": 0.0}, "weight_scale is 0.0"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        solve(options.pop("radius", 0.1), **options)


# --- The audit -------------------------------------------------------------------------------------------


def verdicts(x, y, width=10, activation="tanh"):
    audit = nj.certificates.assumptions(x, y, width, activation)
    return audit, {check.assumption: check for check in audit.checks}


def test_gaussian_data_pass_the_audit():
    audit, found = verdicts(*problem())
    assert audit.holds
    assert found["samples come from a continuous distribution"].verdict == "cannot be checked"
    assert audit.width_needed == 10


FAILURES = {
    "odd width": ({"width": 7}, "m is even"),
    "narrow": ({"width": 6}, "h·rank(x) ≥ nk and h ≥ k"),
    "relu": ({"activation": "relu"}, "σ is analytic with infinitely many Taylor coefficients"),
    "sigmoid": ({"activation": "sigmoid"}, "σ(z) = 0 only at z = 0"),
}


@pytest.mark.parametrize(("options", "assumption"), FAILURES.values(), ids=FAILURES.keys())
def test_failing_width_or_activation(options, assumption):
    audit, found = verdicts(*problem(), **options)
    assert not audit.holds
    assert found[assumption].verdict == "fails"
    assert assumption in audit.reason


def test_failing_data():
    x, y = problem()
    x[3], x[5], x[7] = x[2], -2 * x[4], 0
    _, found = verdicts(x, y)
    assert "samples 2 and 3 are equal" in found["labels do not contradict each other"].evidence
    assert found["no sample is 0"].evidence == "zero samples: [7]"
    assert found["no two samples are parallel"].verdict == "fails"
    x, y = problem()
    x[:, 0] = 1.0
    _, found = verdicts(x, y)
    assert found["samples come from a continuous distribution"].verdict == "fails"


W, V = np.ones((D, WIDTH)), np.ones((WIDTH // 2, 1))
BAD = {
    "no v": ({"w": W}, {"w": W, "v": V}, r"params is \['w'\]; expected a dict with the leaves 'w'"),
    "no dict": (W, {"w": W, "v": V}, "params is ndarray; expected a dict"),
    "center without w": ({"w": W, "v": V}, {"v": V}, r"center is \['v'\]; expected a dict"),
    "center is w": ({"w": W, "v": V}, W, "center is ndarray; expected a dict"),
    "another width": (
        {"w": np.ones((D, 6)), "v": np.ones((3, 1))},
        {"w": W, "v": V},
        r"params has w of shape \(4, 6\) and v of shape \(3, 1\); expected \(4, 4\) and \(2, 1\), as the center",
    ),
    "not finite": ({"w": W, "v": V * np.nan}, {"w": W, "v": V}, "v has 2 non-finite entries"),
}


@pytest.mark.parametrize("certificate", [nj.certificates.natural_residual, nj.certificates.kkt])
@pytest.mark.parametrize(("params", "center", "message"), BAD.values(), ids=BAD.keys())
def test_weights_that_do_not_fit(certificate, params, center, message):
    with pytest.raises(ValueError, match=message):
        certificate(params, center, *problem(), radius=0.1)


@pytest.mark.parametrize(("model", "k"), [("pairwise", 2), ("standard", 1)])
def test_second_derivatives_from_one_product_a_kind_of_weight(model, k, x64):
    """Against central differences of the gradient: their error is of order step² = 1e-10."""
    x, y = problem()
    pairwise = model == "pairwise"
    rng = np.random.default_rng(1)
    half = rng.normal(size=(D, WIDTH // 2)) / 2
    center = {"w": np.tile(half, 2), "v": rng.normal(size=(WIDTH // 2 if pairwise else WIDTH, k)) / 2}
    zeta = 1e-3 if pairwise else None
    y = np.stack([y] * k, axis=1)
    p = problem7.constrained(center, x, y, 0.5, zeta, np.inf, nj.activations.get("tanh"))
    point = p.point(jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), center))
    steps = 1e-5 * np.eye(point.size)
    ahead, behind = (
        np.array([problem7.natural(p, point + sign * step)[1] for step in steps]) for sign in (1, -1)
    )
    expected = (ahead - behind) / 2e-5
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(Descent.at(p, point).exact.hessian, expected, atol=1e-7)


@pytest.fixture(scope="module")
def on_the_sphere():
    """A KKT point of a standard net on the sphere, where the Hessian is indefinite and the Lagrangian's is not."""
    with jax.enable_x64(True):
        x, y = problem()
        s = solve_kkt(KEY, x, y, WIDTH, 0.5, model="standard", tolerance=1e-12)
        tanh = nj.activations.get("tanh")
        p = problem7.constrained(s.center, x, y[:, None], 0.5, None, np.inf, tanh)
        point = p.point(s.params)
        yield p, point, s


def test_exact_step_on_the_sphere_knows_its_curvature(on_the_sphere, x64):
    """Without damping it takes 99.5 % of the residual, far more than with JᵀJ; the Hessian alone is indefinite."""
    p, point, s = on_the_sphere
    assert s.converged
    model = Descent.at(p, point).exact
    assert np.linalg.eigvalsh(model.hessian)[0] < 0 < np.linalg.eigvalsh(model.matrix)[0]
    hidden = np.arange(point.size) < p.w0.size
    noise = np.random.default_rng(2).normal(size=point.shape)
    # 1.001: out of the ball, so that the projection ends on the sphere
    away = p.project(np.where(hidden, 1.001, 1) * (point + 1e-4 * noise))
    descent = Descent.at(p, away)
    steps = [descent.damped(1e-15, exact).point for exact in (True, False)]
    before, exact, gauss = (float(np.linalg.norm(problem7.natural(p, at)[2])) for at in (away, *steps))
    assert exact < before / 200
    assert gauss > 10 * exact


def test_bend_is_the_change_of_the_residuals_beyond_the_linear_one(on_the_sphere, x64):
    p, point, _ = on_the_sphere
    move = jax.numpy.asarray(np.random.default_rng(3).normal(size=point.shape))
    J = jax.jacrev(p.residuals)(point)
    h = 1e-4
    second = (p.residuals(point + h * move) - 2 * p.residuals(point) + p.residuals(point - h * move)) / h**2
    np.testing.assert_allclose(Descent.at(p, point).bend(move), J.T @ second / 2, rtol=1e-5, atol=1e-5)
