"""Theorem 1 as a solver: exact nets in small balls, certified, or the reason why not."""

import jax
import numpy as np
import pytest
from memorizing import KEY, WIDTH, D, N, exact_loss, gaussian, jacobian, start

import narrow_jax as nj
from narrow_jax.certificates.narrow_nets.definition1_distinct_samples import distinct_samples


@pytest.fixture
def found():
    """Data and what is found for them in a ball of radius ½."""
    x, y = gaussian()
    return x, y, nj.memorize(KEY, x, y, width=WIDTH, radius=0.5)


@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0, np.inf])
@pytest.mark.parametrize("seed", range(2))
def test_gaussian_labels_are_learned_exactly_inside_the_ball(seed, radius):
    x, y = gaussian(seed=seed)
    m = nj.memorize(jax.random.key(seed), x, y, width=WIDTH, radius=radius)
    assert m.status == "solved"
    assert m.loss <= 1e-16
    assert np.linalg.norm(m.params["w"] - m.center["w"]) <= radius
    assert m.certificate.holds
    assert m.certificate.distance + m.certificate.rho <= radius
    assert float(exact_loss(m.params, x, y)) <= 1e-16
    np.testing.assert_array_equal(m.params["v"], m.scale * m.center["v"])
    assert (m.params["v"] >= 1e-3).all()


def test_loss_in_history_falls_quadratically():
    x, y = gaussian()
    loss = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1).history["loss"]
    assert loss[0] == pytest.approx(np.sum(y**2) / 2)
    assert len(loss) <= 6
    assert (np.diff(np.log(loss)) < -5).all()


@pytest.mark.parametrize("options", [{"method": "cg"}, {"dtype": "float32"}], ids=["cg", "float32"])
def test_methods_agree(found, options):
    x, y, m = found
    other = nj.memorize(KEY, x, y, width=WIDTH, radius=0.5, certify=False, **options)
    assert m.status == other.status == "solved"
    # the same Newton path, up to the tolerance of the linear solves
    np.testing.assert_allclose(other.params["w"], m.params["w"], atol=1e-6)


def test_several_outputs():
    x, _ = gaussian(N // 2)
    y = np.eye(2)[np.random.default_rng(1).integers(2, size=N // 2)]
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.2)
    assert m.certificate.holds
    assert m.params["v"].shape == (WIDTH // 2, 2)
    assert m.certificate.rows == N
    assert float(exact_loss(m.params, x, y)) < 1e-16


def test_width_is_found_from_the_rank():
    x, y = gaussian()
    assert nj.jacobian.admissible_width(x) == 10
    x[:, 4] = x[:, 3]  # rank 4
    m = nj.memorize(KEY, x, y, radius=0.1)
    assert m.params["w"].shape[1] == WIDTH == nj.jacobian.admissible_width(x)
    assert m.certificate.holds


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_inside_the_nice_region(seed):
    x, y = gaussian(seed=seed)
    m = nj.memorize(jax.random.key(seed), x, y, width=WIDTH)
    region = nj.certificates.nice_region(m.center, x)
    assert region.holds
    assert m.radius_used == region.radius
    assert m.status == "solved"
    assert m.certificate.holds


def test_nice_region_keeps_full_rank():
    x, _ = gaussian()
    center = start()
    region = nj.certificates.nice_region(center, x)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = rng.normal(size=center["w"].shape)
        w = center["w"] + 0.999 * region.radius * step / np.linalg.norm(step)
        v = rng.uniform(0.1, 10, size=center["v"].shape) * rng.choice([-1, 1], size=center["v"].shape)
        assert np.linalg.matrix_rank(jacobian(w, v, x)) == N


# --- Bad input -------------------------------------------------------------------------------------------


def test_no_sample():
    with pytest.raises(ValueError, match="there is no sample"):
        nj.memorize(KEY, np.zeros((0, 3)), np.zeros(0))


def test_one_sample():
    m = nj.memorize(KEY, np.ones((1, 3)), np.ones(1), radius=0.1)
    assert m.certificate.holds
    assert m.params["w"].shape == (3, 2)


def test_constant_labels():
    x, _ = gaussian()
    assert nj.memorize(KEY, x, np.full(N, 3.0), width=WIDTH, radius=0.1).certificate.holds
    zero = nj.memorize(KEY, x, np.zeros(N), width=WIDTH, radius=0.1)
    assert (zero.status, zero.loss, len(zero.history["loss"])) == ("solved", 0.0, 1)
    assert zero.certificate.holds


def test_zero_sample():
    x, y = gaussian(N + 1)
    x[3] = 0
    with pytest.raises(ValueError, match="sample 3 is 0 and its label is not"):
        nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    y[3] = 0
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.certificate.holds
    assert m.certificate.rows == N
    with pytest.raises(ValueError, match="every sample is 0"):
        nj.memorize(KEY, np.zeros((4, 3)), np.zeros(4))


def test_duplicates():
    x, y = gaussian(N + 1)
    x[7] = x[2]
    with pytest.raises(ValueError, match="samples 2 and 7 are equal and their labels"):
        nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    y[7] = y[2]
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.certificate.holds
    assert np.abs(m.residual).max() < 1e-9


def test_parallel_samples():
    x, y = gaussian()
    x[7] = 2 * x[2]  # tanh tells them apart
    assert nj.memorize(KEY, x, y, width=WIDTH, radius=0.1).certificate.holds
    x[7] = -x[2]  # an odd net cannot
    m = nj.memorize(KEY, x, y, width=WIDTH, radius=0.1)
    assert m.status == "rank_deficient"
    assert "samples [2, 7] depend on each other" in m.message
    assert np.isfinite(m.params["w"]).all()
    assert not nj.certificates.memorization(m.params, m.center, x, y).holds


def test_bad_width():
    x, y = gaussian()
    with pytest.raises(ValueError, match="expected an even number"):
        nj.memorize(KEY, x, y, width=11)
    with pytest.raises(ValueError, match="smallest admissible width is 10"):
        nj.memorize(KEY, x, y, width=8)


@pytest.mark.parametrize(("scale_x", "scale_y"), [(1.0, 1e12), (1.0, 1e-5), (1e-2, 1.0)])
def test_scales_that_are_carried(scale_x, scale_y):
    x, y = gaussian()
    m = nj.memorize(KEY, scale_x * x, scale_y * y, width=WIDTH, radius=0.1)
    assert m.status == "solved"
    assert m.loss <= 1e-14 * np.sum((scale_y * y) ** 2)


def test_labels_below_the_digits_of_w_are_diagnosed():
    x, y = gaussian()
    m = nj.memorize(KEY, x, 1e-12 * y, width=WIDTH, radius=0.1)
    assert m.status == "not_converged"
    assert "scale x and y" in m.message
    assert m.certificate is None


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scales_without_rank_are_diagnosed(scale):
    """tanh is linear at 0 and constant far out: either way the samples cannot be told apart."""
    x, y = gaussian()
    m = nj.memorize(KEY, scale * x, y, width=WIDTH, radius=0.1)
    assert m.status == "rank_deficient"
    assert "scale x to entries of size one" in m.message
    assert np.isfinite(m.params["w"]).all()


def test_relu_runs_and_says_what_is_missing():
    x, y = gaussian(seed=2)  # with this start of full rank
    with pytest.raises(ValueError, match="gives no ε₀: σ' of relu jumps"):
        nj.memorize(jax.random.key(2), x, y, width=WIDTH, activation="relu")
    m = nj.memorize(jax.random.key(2), x, y, width=WIDTH, radius=0.5, activation="relu")
    assert m.status == "solved"
    assert not m.certificate.holds
    assert "σ' of relu jumps" in m.certificate.reason


BAD = {
    "radius 0": ({"radius": 0.0}, "radius is 0, which freezes w"),
    "negative radius": ({"radius": -1.0}, "expected a number ≥ 0"),
    "method": ({"method": "chol"}, "did you mean 'cholesky'"),
    "dtype": ({"dtype": "float16"}, "Expected one of float64, float32"),
    "steps": ({"steps": 0}, "steps is 0"),
    "activation": ({"activation": "tahn"}, "did you mean 'tanh'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options(options, message):
    x, y = gaussian()
    with pytest.raises(ValueError, match=message):
        nj.memorize(KEY, x, y, width=WIDTH, **options)


def test_bad_values():
    x, y = gaussian()
    y[3] = np.nan
    with pytest.raises(ValueError, match="y has 1 non-finite entries"):
        nj.memorize(KEY, x, y)
    with pytest.raises(TypeError, match="expected real floating numbers"):
        nj.memorize(KEY, x, np.ones(N, int))


def test_a_plain_start_is_no_zero():
    """Without the mirror scaling v does not help: the residual of f(w⁰) is what a small ball cannot mend."""
    x, y = gaussian()
    plain = jax.tree.map(np.asarray, nj.initializers.lecun(KEY, inputs=D, width=WIDTH))
    assert np.linalg.norm(np.tanh(x @ plain["w"]) @ plain["v"]) > 0.1
    mirrored = nj.memorize(KEY, x, y, width=WIDTH, radius=1e-3)
    assert mirrored.certificate.holds


def test_distinct_keeps_order_and_names_pairs():
    x = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, -0.0], [2.0, 0.0]])
    found = distinct_samples(x, np.array([[1.0], [0.0], [1.0], [0.0]]))
    assert found.kept.tolist() == [0, 3]
    assert found.repeated == ((2, 0),)
    assert found.zero == (1,)
