"""What the audit finds without a grid, and that no certificate relies on constants that are refuted."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyramids import SIGMA, problem

import narrow_jax as nj
from narrow_jax.activations import Activation
from narrow_jax.certificates.narrow_nets.assumptions import PARALLEL
from narrow_jax.certificates.pyramidal_nets.assumptions import evaluation_defects

PARALLELS = "no two samples are parallel"


def verdicts(x, width=20):
    audit = nj.certificates.assumptions(x, np.arange(1.0, 1 + len(x)), width)
    return audit, {check.assumption: check for check in audit.checks}


def brute(x):
    """Return the parallel pairs by all distances of unit directions."""
    unit = x / np.abs(x).max(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    gaps = [np.linalg.norm(unit[:, None] - sign * unit[None], axis=2) for sign in (1, -1)]
    i, j = np.nonzero(np.minimum(*gaps) < PARALLEL)
    return {(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < b}


@pytest.mark.parametrize("factor", [1.0, -7.0, 1 / 3, 1e-150, -1e150, 1e160])
def test_multiples_are_parallel_wherever_they_lie(factor):
    """Many samples: a grid has a boundary between two directions that differ by rounding, now and then."""
    x = np.random.default_rng(0).normal(size=(2000, 3))
    found = verdicts(np.concatenate([x, factor * x]))[1][PARALLELS]
    assert found.evidence.startswith("2000 pairs, such as")
    found = verdicts(np.concatenate([x, factor * x[7:8]]))[1][PARALLELS]
    assert found == (PARALLELS, "fails", "1 pairs, such as samples 7 and 2000 (zero samples not counted)")


@pytest.mark.parametrize("seed", range(10))
def test_pairs_are_those_of_all_distances(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, size=(40, 3)).astype(float)
    x = x[x.any(axis=1)] * rng.choice([1.0, 1e-160, 1e160], size=(np.sum(x.any(axis=1)), 1))
    pairs = brute(x)
    count, i, j = map(int, re.findall(r"\d+", verdicts(x)[1][PARALLELS].evidence))
    assert count == len({b for _, b in pairs} | {a for a, _ in pairs}) - len(classes(pairs))
    assert (i, j) in pairs


def classes(pairs):
    """Return the sets of samples that are parallel to each other."""
    found = []
    for pair in sorted(pairs):
        home = next((group for group in found if group & set(pair)), None)
        (found.append(set(pair)) if home is None else home.update(pair))
    return found


def test_close_directions_are_not_parallel():
    x = np.random.default_rng(0).normal(size=(200, 5))
    x[100:] = x[:100] + 1e-10 * np.random.default_rng(1).normal(size=(100, 5))
    assert verdicts(x, 100)[1][PARALLELS].verdict == "holds"


def test_zero_samples_do_not_shift_the_names():
    x = np.random.default_rng(0).normal(size=(6, 3))
    x[1], x[5] = 0, 2 * x[3]
    assert "samples 3 and 5" in verdicts(x)[1][PARALLELS].evidence


@pytest.mark.parametrize(
    ("x", "assumption", "verdict"),
    [
        (np.eye(2, 5), "the samples, fewer than d, are linearly independent", "holds"),
        (np.ones((2, 5)), "the samples, fewer than d, are linearly independent", "fails"),
        (np.eye(5, 5), "x spans R^d", "holds"),
        (np.eye(7, 5)[:, [0, 1, 2, 3, 3]], "x spans R^d", "fails"),
    ],
)
def test_fewer_samples_than_inputs_span_nothing(x, assumption, verdict):
    audit, found = verdicts(x)
    assert found[assumption].verdict == verdict
    assert audit.rank < x.shape[1] or assumption == "x spans R^d"
    assert ("x spans R^d" in found) == (len(x) >= x.shape[1])


# --- Constants that a user states ------------------------------------------------------------------------

LIE = dataclasses.replace(nj.activations.get("tanh"), name="liar", sup_second_derivative=0.1)
LEAK = dataclasses.replace(SIGMA, name="liar", sup_second_derivative=0.1)
NET = {"w": np.tile(np.eye(2), 2), "v": np.ones((2, 1))}
X, Y = np.array([[1.0, 2.0], [3.0, -1.0]]), np.ones(2)
PYRAMID = problem((12, 1))
CERTIFICATES = {
    "assumptions": lambda: nj.certificates.assumptions(X, Y, 4, LIE),
    "memorization": lambda: nj.certificates.memorization(NET, NET, X, Y, activation=LIE),
    "nice_region": lambda: nj.certificates.nice_region(NET, X, LIE),
    "kkt": lambda: nj.certificates.kkt(NET, NET, X, Y, 0.1, activation=LIE),
    "pyramidal": lambda: nj.certificates.pyramidal(*PYRAMID, LEAK),
    "invariants": lambda: nj.certificates.PyramidalInvariants(
        nj.certificates.pyramidal(*PYRAMID, SIGMA), PYRAMID[2], LEAK
    ),
    "lambda_star": lambda: nj.certificates.lambda_star(PYRAMID[1], LEAK),
    "lecun_width": lambda: nj.certificates.lecun_width(PYRAMID[1], PYRAMID[2], (1,), LEAK),
}


@pytest.mark.parametrize("certify", CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_refuted_constants_are_refused(certify):
    with pytest.raises(ValueError, match=r"activation 'liar' states sup_second_derivative = 0\.1, but"):
        certify()


def blend(cast=lambda z: z, shift=0.0):
    """(z + tanh z)/2 with γ = ½, β = 0.39."""
    return Activation(
        "blend",
        lambda z: ((cast(z) + jnp.tanh(cast(z))) / 2).astype(z.dtype) + shift,
        lambda z: 1 - jnp.tanh(z) ** 2 / 2,
        1.0,
        0.5,
        0.39,
    )


def test_what_is_taken_for_granted_is_named():
    params, x, y = problem((12, 1), targets=1e-4)
    found = nj.certificates.pyramidal(params, x, y, blend())
    assert found.holds
    words = "blend is taken to be evaluated within 64 units 2⁻⁵³ of |z|"
    assert found.reason.endswith(words)
    assert found.sharper.reason.endswith(words)
    assert "taken" not in nj.certificates.pyramidal(params, x, y, SIGMA).reason
    mixed = nj.certificates.pyramidal(params, x, y, nj.activations.per_unit([SIGMA, blend()] * 6))
    assert mixed.reason.endswith(f"; {words}")


@pytest.mark.parametrize("enabled", [False, True])
def test_an_activation_computed_in_float32_is_not_certified(enabled):
    with jax.enable_x64(enabled):
        low = blend(lambda z: z.astype(jnp.float32))
        defects = evaluation_defects(low)
    assert defects == [
        "blend is not evaluated within 64 units 2⁻⁵³ of |z|: compute it in float64, without casts"
    ]
    jumps = blend(lambda z: jnp.round(z * 2.0**30) * 2.0**-30)
    assert len(evaluation_defects(jumps)) == 1


@pytest.mark.parametrize("shift", [1e-60, -1e-9, np.nan])
def test_a_value_at_zero_that_float32_does_not_see(shift):
    (defect, *_) = evaluation_defects(blend(shift=shift))
    assert defect == f"Assumption 2.2 (ii): σ(0) = {shift:g} is not 0 for blend"


@pytest.mark.parametrize(("gamma", "beta"), [(0.5, 1.0), (1e-3, 1e6), (0.9, 1e-3), (0.5, 1e3)])
def test_the_family_of_equation_2_is_evaluated_as_assumed(gamma, beta):
    assert evaluation_defects(nj.activations.smooth_leaky_relu(gamma, beta)) == []
