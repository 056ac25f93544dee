"""Starts of section 3.1: the draws, and the search for one that is certified."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyramids import SIGMA, sphere

import narrow_jax as nj

search = nj.solvers.pyramidal_start
draw = nj.initializers.pyramidal


def data(samples=4, inputs=6, outputs=1, targets=0.01):
    rng = np.random.default_rng(0)
    x, y = sphere(rng, samples, inputs), targets * rng.normal(size=(samples, outputs))
    return x.astype(np.float32), y.astype(np.float32)


def test_lecun_has_variance_one_over_inputs():
    params = draw(jax.random.key(0), inputs=100, widths=(400, 300, 200), variant="lecun")
    for name, inputs in (("w1", 100), ("w2", 400), ("w3", 300)):
        # 40,000 and more entries: the deviation of the sample variance is below 0.7 %
        assert float(params[name].var()) * inputs == pytest.approx(1, abs=0.03)


def test_variants_share_the_first_layers():
    key, sizes = jax.random.key(0), {"inputs": 100, "widths": (400, 300, 200), "variance": 4.0}
    a, b = (draw(key, **sizes, variant=variant, scale=2.0) for variant in ("identity", "gaussian"))
    assert float(a["w2"].var()) == pytest.approx(4, abs=0.1)
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(a["w3"], 2 * np.eye(300, 200))
    assert float(b["w3"].var()) * 300 == pytest.approx(400**2, rel=0.03)


def gaussian_ratio(wide, narrow, scale=3.0):
    """λ² over cλ̄ of one Gaussian layer: section 3.1 asks for at least 1."""
    params = draw(
        jax.random.key(1),
        inputs=2,
        widths=(2, wide, narrow),
        variant="gaussian",
        scale=scale,
        dtype=jnp.float32,
    )
    low, high = nj.spectra.extremes(params["w3"])
    return low**2 / (scale * high)


def test_gaussian_layers_need_the_ratio_1_11():
    assert gaussian_ratio(300, int(300 / 1.15**2)) > 1
    assert gaussian_ratio(300, int(300 / 1.01**2)) < 1  # what the paper's text asks for


BAD_DRAWS = {
    "variant": ({"variant": "gausian"}, "did you mean 'gaussian'"),
    "one width": ({"widths": (4,)}, r"widths are \(4,\); expected n_1 … n_L, at least two"),
    "no width": ({"widths": (4, 0)}, "width n_2 is 0; expected an integer ≥ 1"),
    "scale": ({"scale": 0.0}, "scale is 0.0; expected a finite number > 0"),
    "variance": ({"variance": -1.0}, "variance is -1.0; expected a finite number ≥ 0"),
    "lecun": ({"variant": "lecun", "scale": 2.0}, "the variant 'lecun' has neither"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DRAWS.values(), ids=BAD_DRAWS.keys())
def test_bad_draws_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        draw(jax.random.key(0), **({"inputs": 3, "widths": (4, 2)} | change))


NETS = [
    ((10, 1), "identity"),
    ((10, 4, 1), "identity"),
    ((10, 4, 1), "gaussian"),
    ((10, 4, 4, 2, 1), "gaussian"),
    ((10, 4, 4, 4, 4, 4, 2, 1), "identity"),
]


@pytest.mark.parametrize(("widths", "variant"), NETS)
def test_found_starts_are_certified_in_their_own_dtype(widths, variant):
    x, y = data()
    found = search(jax.random.key(0), x, y, widths, SIGMA, variant)
    assert found.certificate.holds, found.certificate.reason
    assert found.certificate == nj.certificates.pyramidal(found.params, x, y, SIGMA)
    assert found.variance > 0
    assert all(w.dtype == jnp.float32 for w in found.params.values())


def test_ten_outputs():
    x, y = data(outputs=10)
    assert search(jax.random.key(0), x, y, (11, 10, 10), SIGMA).certificate.holds


def test_twenty_samples_and_three_layers(x64):
    """The example of the issue: certified, and at once said how little a step does."""
    rng = np.random.default_rng(0)
    x, y = sphere(rng, 20, 10), 0.01 * rng.normal(size=(20, 1))
    found = search(jax.random.key(0), x, y, (40, 4, 1), SIGMA, dtype=jnp.float64)
    c = found.certificate
    assert c.holds
    assert -9 < c.paper.log10_rate < -7
    assert c.paper.steps_to(c.initial_loss / 1e4) > 1e8
    assert c.sharper.steps_to(c.initial_loss / 1e4) < 1e5


def test_scale_is_nearly_the_smallest():
    x, y = data()
    found = search(jax.random.key(0), x, y, (10, 4, 1), SIGMA)
    smaller = draw(jax.random.key(0), inputs=6, widths=(10, 4, 1), scale=found.scale / 1.11)
    assert not nj.certificates.pyramidal(smaller, x, y, SIGMA).holds


def test_variance_is_nearly_the_largest():
    x, y = data()
    found = search(jax.random.key(0), x, y, (10, 4, 1), SIGMA)
    larger = found.params | {"w2": found.params["w2"] * 2}
    assert not nj.certificates.pyramidal(larger, x, y, SIGMA).holds


def test_two_layers_scale_the_first():
    x, y = data(targets=10.0)
    found = search(jax.random.key(0), x, y, (10, 1), SIGMA)
    assert found.certificate.holds
    assert found.scale == 1 < found.first_scale
    drawn = draw(jax.random.key(0), inputs=6, widths=(10, 1))
    np.testing.assert_allclose(found.params["w1"], found.first_scale * drawn["w1"], rtol=1e-6)


def test_equal_samples_have_no_start_and_the_certificate_says_why():
    x, y = data()
    found = search(
        jax.random.key(0), np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]]), (10, 4, 1), SIGMA
    )
    assert not found.certificate.holds
    assert "rows 0 and 4 of x are equal" in found.certificate.reason


BAD = {
    "lecun": ({"variant": "lecun"}, ValueError, "unknown variant 'lecun'"),
    "y": ({"y": np.ones((4, 2), np.float32)}, ValueError, r"y \(4, 2\); expected \(N, 6\) and \(N, 1\)"),
    "x": ({"x": np.ones((4, 6), int)}, TypeError, "x has dtype int64"),
    "float64": ({"dtype": jnp.float64}, ValueError, "float64 was asked for while x64 is off"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(change, error, message):
    x, y = data()
    arguments = {"x": x, "y": y, "widths": (12, 1), "activation": SIGMA} | change
    with pytest.raises(error, match=message):
        search(jax.random.key(0), **arguments)
