"""σ_min along training: close to the dense value everywhere, an upper bound, refreshed when stale."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.spectra import tracking

CLOSE = 1e-3  # the residual of a look is below 3e-2, its square bounds the relative error of θ = σ²
ABOVE = 1e-5  # the vector is kept in float32, and values come back in float32


draw = jax.jit(functools.partial(nj.initializers.mirrored_lecun, inputs=8, width=20))


@pytest.fixture(scope="module")
def x():
    return np.float32(np.random.default_rng(0).normal(size=(40, 8)))


@pytest.fixture(scope="module")
def params():
    return draw(jax.random.key(1))


def dense_sigma_min(params, x):
    """NumPy's SVD of the matrix written out in float64."""
    w, v, x = (np.asarray(leaf, np.float64) for leaf in (params["w"], params["v"], x))
    signed = np.concatenate([v, -v])[:, 0]
    d = signed / np.cosh(x @ w) ** 2
    return np.linalg.svd((x[:, :, None] * d[:, None, :]).reshape(len(x), -1), compute_uv=False)[-1]


@pytest.fixture(scope="module")
def look():
    return jax.jit(lambda tracked, params, x: tracking.look(tracked, nj.jacobian.pairwise(params, x)))


def drift(params, step):
    """The weights after some steps of a slow, smooth motion that breaks the mirror."""
    w, v = (np.asarray(params[name], float) for name in ("w", "v"))
    direction = np.random.default_rng(9).normal(size=w.shape)
    return {"w": np.float32(w + 0.01 * step * direction), "v": np.float32(v * (1 + 0.02 * step))}


def test_follows_a_drift_closely_from_above(params, x, look):
    tracked = tracking.start(40)
    for step in range(30):
        moved = drift(params, step)
        tracked, value = look(tracked, moved, x)
        exact = dense_sigma_min(moved, x)
        assert exact * (1 - ABOVE) <= value <= exact * (1 + CLOSE)
    assert tracked.refreshes < 15  # most looks live on what is kept


def test_same_weights_need_one_factorisation(params, x, look):
    tracked = tracking.start(40)
    for _ in range(5):
        tracked, _ = look(tracked, params, x)
    assert tracked.refreshes == 1


def test_a_jump_is_noticed(params, x, look):
    tracked, _ = look(tracking.start(40), params, x)
    other = draw(jax.random.key(5))
    tracked, value = look(tracked, other, x)
    assert value == pytest.approx(dense_sigma_min(other, x), rel=CLOSE)
    assert tracked.refreshes == 2


def test_without_refresh_a_jump_would_be_missed(params, x, look):
    """Negative control: the residual of a stale inverse is what triggers the refresh."""
    tracked, _ = look(tracking.start(40), params, x)
    other = draw(jax.random.key(5))
    with jax.enable_x64(True):
        j = nj.jacobian.pairwise(other, x).evaluate("float64")
        kept = (np.float64(leaf) for leaf in tracked[:2])
        stale = jax.jit(tracking._lobpcg, static_argnums=3)(j, *kept, tracking.STEPS)
        value = float(stale.theta) ** 0.5 * 2.0 ** int(j.exponent)
    error = value / dense_sigma_min(other, x) - 1
    assert float(stale.residual) > tracking.TOLERANCE
    assert error > CLOSE


def test_singular_jacobian_reports_a_tiny_upper_bound(params, x, look):
    twins = x.copy()
    twins[1] = x[0]  # equal samples: two equal rows
    tracked, value = look(tracking.start(40), params, twins)
    assert 0 <= value <= 1e-6 * dense_sigma_min(params, x)
    assert jnp.isfinite(tracked.vector).all()


def test_fit_carries_it(params, x):
    import optax

    y = np.float32(np.random.default_rng(3).normal(size=(40, 1)))
    tx = nj.constraints.regime(optax.sgd(1e-3), radius=0.5)
    result = nj.fit(
        nj.models.pairwise_apply,
        params,
        tx,
        (x, y),
        steps=40,
        every=20,
        monitors=[nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)],
    )
    assert result.history["sigma_min"][0] == pytest.approx(dense_sigma_min(params, x), rel=CLOSE)
    assert result.history["sigma_min"][-1] == pytest.approx(dense_sigma_min(result.params, x), rel=CLOSE)
