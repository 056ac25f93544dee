"""The invariants (21) along training: quiet where the theorem holds, and the right one named where one breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import unstrict
from pyramids import SIGMA, descend, problem, sigma

import narrow_jax as nj


def apply_fn(params, x):
    return nj.models.mlp_apply(params, x, SIGMA)


def case(dtype=np.float64, widths=(10, 3, 2), **options):
    params, x, y = problem(widths, **({"scale": 1e4, "second": 1e-9} | options))
    return {name: jnp.asarray(w, dtype) for name, w in params.items()}, x.astype(dtype), y.astype(dtype)


def watched(params, x, y, certificate, steps=300, every=1):
    watch = nj.certificates.PyramidalInvariants(certificate, y, SIGMA, every)
    tx = unstrict(optax.sgd(certificate.learning_rate))
    result = nj.fit(apply_fn, params, tx, (x, y), steps=steps, every=every, monitors=[watch])
    return watch.first_broken(result.history), result


@pytest.mark.parametrize(("dtype", "every"), [(np.float32, 1), (np.float64, 7)])
def test_certified_descent_breaks_none(dtype, every, x64):
    data = case(dtype, widths=(12, 1), targets=1e-4)
    certificate = nj.certificates.pyramidal(*data, SIGMA)
    assert certificate.holds
    broken, result = watched(*data, certificate, every=every)
    assert broken is None
    assert result.history["loss"][-1] < 0.9 * result.history["loss"][0]


def brute(path, losses, certificate, x):
    """The first broken invariant by singular values in NumPy, step by step, in the order of (21)."""
    path, layers = jax.tree.map(np.asarray, path), len(path)
    for step, loss in enumerate(np.asarray(losses)):
        values = [np.linalg.svd(path[f"w{i + 1}"][step], compute_uv=False) for i in range(layers)]
        features = np.asarray(sigma(x @ path["w1"][step])[0])
        for i in range(2, layers):
            if values[i][-1] < certificate.lambdas[i] / 2:
                return f"σ_min(W_{i + 1}) ≥ λ/2", step
        for i in range(layers):
            if values[i][0] > 1.5 * certificate.lambda_bars[i]:
                return f"‖W_{i + 1}‖ ≤ (3/2)λ̄", step
        if np.linalg.svd(features, compute_uv=False)[-1] < certificate.lambda_f / 2:
            return "σ_min(F_1) ≥ λ_F/2", step
        if loss > certificate.paper.loss_bound(step) * (1 + 1e-9):
            return "Φ ≤ (1 − ηα₀)^r Φ(θ_0)", step
    return None


RUNS = {  # scale of W_3, of Y, ν^½, the step as a multiple of the certified one
    "large step": (1e4, 0.01, 1e-9, 1e6),
    "small W_3": (0.05, 3.0, 0.3, 1e4),
    "large targets": (1.0, 30.0, 0.3, 2e3),
}


@pytest.mark.parametrize(("scale", "targets", "second", "factor"), RUNS.values(), ids=RUNS.keys())
def test_the_first_that_breaks_is_the_one_brute_force_finds(scale, targets, second, factor, x64):
    params, x, y = case(scale=scale, targets=targets, second=second)
    largest = nj.certificates.pyramidal(params, x, y, SIGMA).max_learning_rate
    certificate = nj.certificates.pyramidal(params, x, y, SIGMA, learning_rate=factor * largest)
    assert not certificate.holds
    losses, path = descend(params, x, y, certificate.learning_rate, 101)
    expected = brute(path, losses, certificate, x)
    assert expected is not None
    assert watched(params, x, y, certificate, steps=100)[0] == expected


SHIFTS = {
    "σ_min(W_3) ≥ λ/2": lambda p: p | {"w3": 0.4 * p["w3"]},
    "‖W_1‖ ≤ (3/2)λ̄": lambda p: p | {"w1": 2 * p["w1"]},
    "‖W_2‖ ≤ (3/2)λ̄": lambda p: p | {"w2": p["w2"] + 1},
    "‖W_3‖ ≤ (3/2)λ̄": lambda p: p | {"w3": 1.6 * p["w3"]},
    "σ_min(F_1) ≥ λ_F/2": lambda p: p | {"w1": 0.3 * p["w1"]},
}


def test_each_invariant_is_seen(x64):
    params, x, y = case()
    watch = nj.certificates.PyramidalInvariants(nj.certificates.pyramidal(params, x, y, SIGMA), y, SIGMA)
    look = jax.jit(watch.update)
    state, first = look(watch.init(params, x), params, x)
    for invariant, shift in SHIFTS.items():
        _, second = look(state, shift(params), x)
        history = {"step": np.arange(2), watch.name: np.array([first, second])}
        assert watch.first_broken(history) == (invariant, 1)


def test_leaving_the_ball_alone_breaks_nothing(x64):
    params, x, y = case()
    watch = nj.certificates.PyramidalInvariants(nj.certificates.pyramidal(params, x, y, SIGMA), y, SIGMA)
    turned = params | {"w3": -params["w3"], "w2": -params["w2"]}  # far away, with the same singular values
    code = jax.jit(watch.update)(watch.init(params, x), turned, x)[1]
    assert watch.first_broken({"step": np.arange(1), watch.name: np.array([code])}) in (
        None,
        ("Φ ≤ (1 − ηα₀)^r Φ(θ_0)", 0),
    )


def test_memory_is_linear_in_the_width(x64):
    """One buffer of n_1 × n_1 would be 128 MB."""
    params, x, y = case(widths=(4000, 2))
    watch = nj.certificates.PyramidalInvariants(nj.certificates.pyramidal(params, x, y, SIGMA), y, SIGMA)
    compiled = jax.jit(watch.update).lower(watch.init(params, x), params, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 5e6


def test_bad_spacing_is_refused(x64):
    params, x, y = case()
    certificate = nj.certificates.pyramidal(params, x, y, SIGMA)
    with pytest.raises(ValueError, match="every is 0; expected an integer ≥ 1"):
        nj.certificates.PyramidalInvariants(certificate, y, SIGMA, every=0)


def test_another_activation_than_the_certified_one_is_refused():
    params, x, y = problem()
    certificate = nj.certificates.pyramidal(params, x, y, SIGMA)
    other = nj.activations.smooth_leaky_relu(0.25, 1.0)
    with pytest.raises(
        ValueError, match=r"γ = 0\.5, β = 1, and smooth_leaky_relu\(0\.25, 1\.0\) has 0\.25 and 1"
    ):
        nj.certificates.PyramidalInvariants(certificate, y, other)
