"""The campaign of ``benchmarks.adversary`` in small: no miss, and a wrong answer of any kind is one."""

import functools
import json
import math
from dataclasses import replace

import jax
import mpmath
import numpy as np
import pytest

import narrow_jax as nj
from benchmarks.adversary import __main__ as command
from benchmarks.adversary import campaign, exact, memorized, pyramids, ranks, regions, sigma
from benchmarks.adversary.outcome import Outcome

SEED = 11
AMOUNTS = {
    "memorization": 5,
    "nice_region": 4,
    "kkt": 5,
    "pyramidal": 3,
    "stationary_value": 4,
    "basis_functions": 4,
    "data": 10,
}
"""Indices of a certificate; some give several answers."""


def cheap(rng):
    """A problem of one of two shapes and two activations, which compile once."""
    while True:
        problem = sigma.draw(rng)
        arrays = problem.arrays
        shapes = [arrays[name].shape for name in ("matrix", "x") if name in arrays]
        double = all(a.dtype == np.float64 for a in arrays.values())
        known = problem.kind in ("explicit", "pairwise") and problem.activation in sigma.SMOOTH[:2]
        if known and double and shapes[0] in ((12, 48), (12, 6)):
            return problem


def misses(outcomes):
    return [(o.case, o.misses, o.statement[:300]) for o in outcomes if o.misses]


def made(kind):
    return [o for index in range(AMOUNTS[kind]) for o in campaign.check(SEED, kind, index).outcomes]


outcomes = functools.cache(made)


@pytest.fixture(scope="module")
def sharp():
    """Problems with a certified interval of small relative width, and the intervals."""
    rng, found = np.random.default_rng(1), []
    while len(found) < 5:
        problem = cheap(rng)
        s = sigma.solve(problem, "auto")
        if s.certified and s.upper - s.lower < 1e-11 * s.value:
            found.append((problem, s))
    return found


def test_no_interval_misses():
    rng, checked = np.random.default_rng(SEED), []
    for index in range(200):
        problem, method = cheap(rng), sigma.METHODS[index % 4]
        checked.append(
            sigma.check(problem, sigma.solve(problem, method), method, sigma.statement(problem, method))
        )
    assert not misses(checked)
    assert sum(o.holds for o in checked) > 80
    assert len({int(math.log10(o.facts["kappa"])) for o in checked if o.facts["kappa"] < math.inf}) > 9


@pytest.mark.parametrize("kind", AMOUNTS)
def test_no_certificate_misses(kind):
    checked = outcomes(kind)
    assert not misses(checked)
    assert any(o.holds for o in checked)


# a campaign that cannot fail proves nothing


@pytest.mark.parametrize(
    "falsify",
    [
        lambda s: replace(s, lower=s.upper * (1 + 1e-9), upper=s.upper * (1 + 2e-9)),
        lambda s: replace(s, lower=s.lower * (1 - 2e-9), upper=s.lower * (1 - 1e-9)),
        lambda s: replace(s, lower=s.upper),
        lambda s: replace(s, lower=-s.lower),
        lambda s: replace(s, upper=np.array(np.nan)),
        lambda s: replace(s, value=s.value * (1 + 1e-9)),
        lambda s: replace(s, sigma_max=s.sigma_max * 1.1),
        lambda s: replace(s, lower=np.array(0.0)),
        lambda s: replace(s, status_code=np.array(2)),
    ],
)
def test_a_wrong_interval_is_a_miss(sharp, falsify):
    for problem, s in sharp:
        assert not sigma.check(problem, s, "auto").misses
        assert sigma.check(problem, falsify(s), "auto").misses


def test_climbing_finds_what_leaving_out_the_perturbation_does(monkeypatch):
    """With δ = 0 intervals miss, which random problems hardly show."""
    right, draw = sigma.solve, sigma.draw

    def without(problem, method):
        s = right(problem, method)
        if not s.certified or problem.kind == "explicit":
            return s
        with jax.enable_x64(True):
            delta = float(problem.operator().perturbation())
        return replace(s, lower=s.lower + delta, upper=np.maximum(s.upper - delta, s.lower + delta))

    def start(rng):
        monkeypatch.setattr(sigma, "draw", draw)
        problem = cheap(rng)
        monkeypatch.setattr(sigma, "draw", start)
        return problem

    monkeypatch.setattr(sigma, "draw", start)
    assert not misses(o for seed in FRUITFUL for o in sigma.climb(np.random.default_rng(seed)))
    monkeypatch.setattr(sigma, "solve", without)
    assert misses(o for seed in FRUITFUL for o in sigma.climb(np.random.default_rng(seed)))


FRUITFUL = 4, 5
"""Climbs that find it; about a quarter of them do."""


def test_the_reference_has_thirty_digits():
    values = [1e-14, 1e-14 * (1 + 1e-9), *np.linspace(1, 1.1, 10)]
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    k = exact.gram(exact.matrix(rotation * values))
    with mpmath.workdps(80):
        full = mpmath.matrix([[k[max(i, j)][min(i, j)] for j in range(12)] for i in range(12)])
        reference = mpmath.sqrt(mpmath.eigsy(full, eigvals_only=True)[0])
        assert abs(mpmath.mpf(str(exact.smallest(k))) / reference - 1) < 1e-12
    assert exact.at_least(k, exact.smallest(k) * (1 - exact.THIRTY_DIGITS))
    assert not exact.at_least(k, exact.smallest(k) * (1 + exact.THIRTY_DIGITS))


FALSE = {  # kind, function, what the library is made to say
    "rho too small": (
        "memorization",
        "memorization",
        lambda c: c._replace(rho=c.rho * 0.3, holds=c.g <= 0.5),
    ),
    "always a solution": ("memorization", "memorization", lambda c: c._replace(holds=True, rho=0.0)),
    "L without underflow": (
        "memorization",
        "memorization",
        lambda c: c._replace(lipschitz=c.lipschitz / 1.1),
    ),
    "region too large": ("nice_region", "nice_region", lambda c: c._replace(radius=c.radius * 1.01)),
    "no edge of the region": ("nice_region", "nice_region", lambda c: c._replace(radius=math.inf)),
    "every KKT point": ("kkt", "kkt", lambda c: c._replace(holds=True)),
    "another residual": ("kkt", "kkt", lambda c: c._replace(residual=c.residual + 1e-7)),
    "another threshold": ("kkt", "kkt", lambda c: c._replace(threshold=c.threshold * 1.01)),
    "any start": ("pyramidal", "pyramidal", lambda c: c._replace(holds=True)),
    "λ_F too large": ("pyramidal", "pyramidal", lambda c: c._replace(lambda_f=c.lambda_f * (1 + 1e-9))),
    "another rank": (
        "stationary_value",
        "stationary_value",
        lambda c: c._replace(ranks={name: rank - 1 for name, rank in c.ranks.items()}),
    ),
    "another value": (
        "stationary_value",
        "stationary_value",
        lambda c: c._replace(value=c.value * 1.001 + 1e-6),
    ),
    "at rest anywhere": ("stationary_value", "stationary_value", lambda c: c._replace(holds=True)),
    "another bound": (
        "basis_functions",
        "basis_function_bound",
        lambda c: c._replace(bound=c.bound + 1e-5),
    ),
    "another regression": ("basis_functions", "regression_value", lambda value: value + 1e-5),
    "one rank less": ("data", "assumptions", lambda c: c._replace(rank=c.rank - 1)),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_wrong_certificate_is_a_miss(name, monkeypatch):
    kind, function, falsify = FALSE[name]
    right = getattr(nj.certificates, function)
    before = sum(bool(o.misses) for o in outcomes(kind))
    monkeypatch.setattr(nj.certificates, function, lambda *args, **kwargs: falsify(right(*args, **kwargs)))
    after = made(kind)
    assert not [o for o in after if o.case == campaign.CRASH]
    assert sum(bool(o.misses) for o in after) > before


def test_descent_above_its_bound_is_a_miss():
    rng = np.random.default_rng(0)
    while True:
        params, x, y, smooth = pyramids.start(rng)
        found = nj.certificates.pyramidal(params, x, y * 1e-4, pyramids.activation(*smooth))
        if found.sharper.holds:
            break
    problem = params, x, y * 1e-4, smooth, found
    assert not pyramids.broken(*problem, found.sharper)
    fast = found.sharper._replace(log10_alpha=math.log10(0.9 / found.sharper.learning_rate))
    assert any("above its bound" in text for text in pyramids.broken(*problem, fast))
    still = found.sharper._replace(radii=tuple(radius * 1e-6 for radius in found.sharper.radii))
    assert any("above its radius" in text for text in pyramids.broken(*problem, still))


def test_the_projection_onto_the_cone_is_the_nearest_point():
    """Own formula against brute force over t."""
    rng = np.random.default_rng(0)
    for kappa in (1.0, 3.0):
        v = rng.standard_normal(4)
        u = np.array(
            [float(a) for a in regions.ratio_cone([exact.mp.mpf(a) for a in v], exact.mp.mpf(0.1), kappa)]
        )
        t = np.linspace(0.1, 3, 200_001)
        best = np.min(np.sum((np.clip(v, t[:, None], kappa * t[:, None]) - v) ** 2, axis=1))
        assert np.sum((u - v) ** 2) <= best + 1e-12


def test_projections_in_integers():
    rng = np.random.default_rng(0)
    columns = rng.integers(-3, 4, (7, 3)).astype(float) @ rng.integers(-3, 4, (3, 5))
    y = rng.standard_normal(7)
    value, rank = exact.unexplained(ranks.fractions(columns.T), ranks.fractions(y[None])[0])
    assert rank == np.linalg.matrix_rank(columns) == exact.rank(columns) == 3
    expected = np.sum((y - columns @ np.linalg.lstsq(columns, y, rcond=1e-12)[0]) ** 2) / 2
    assert float(value) == pytest.approx(expected, rel=1e-12)


# the campaign itself


def test_a_problem_is_made_again_from_its_index():
    first, again = (campaign.check(SEED, "nice_region", 3) for _ in range(2))
    assert first == again
    assert first != campaign.check(SEED, "nice_region", 0)


def test_a_statement_makes_the_call_again(sharp):
    problem, s = sharp[0]
    names = {"np": np, "nj": nj, "sigma": sigma, "float": float}
    assert eval(sigma.statement(problem, "auto"), names).lower == s.lower
    net = memorized.start(np.random.default_rng(0))
    assert eval(net.statement(0.5), names) == net.certificate(0.5)


def test_a_crash_is_recorded_and_the_rest_goes_on(monkeypatch, capsys):
    def fails(rng):
        raise RuntimeError("broken\nfor good")

    monkeypatch.setitem(campaign.KINDS, "kkt", campaign.Kind(fails, 0.1))
    checked = [campaign.check(SEED, kind, 0) for kind in ("kkt", "nice_region")]
    assert checked[0].outcomes[0].misses == ("RuntimeError: broken",)
    assert "in fails: raise RuntimeError" in checked[0].outcomes[0].statement
    records = json.loads(json.dumps(campaign.records(checked), allow_nan=False))
    table = {record["kind"]: record for record in records[: len(campaign.KINDS)]}
    assert (table["kkt"]["crashed"], table["kkt"]["missed"], table["nice_region"]["problems"]) == (1, 0, 1)
    assert records[-1]["misses"] == ["RuntimeError: broken"]
    assert command.report(SEED, checked) == 1
    assert f"--seed {SEED} --only kkt:0" in capsys.readouterr().out


def test_record_of_intervals():
    facts = {"kappa": 3e4, "width": 1e-9, "edge": 0.5}
    found = [Outcome("a", (), True, "", facts), Outcome("a", (), False, "", {"kappa": 2e4})]
    sharpness = campaign.sharpness(found)
    assert sharpness["by_condition_number"] == {
        "1e4": {"problems": 2, "certified": 0.5, "worst_relative_width": 1e-9}
    }
    assert sharpness["nearest_to_a_bound"] == 0.5
