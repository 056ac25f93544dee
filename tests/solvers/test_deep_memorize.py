"""Deep pairs that memorize: loss 0 in the ball with a certificate, and what has no solution is named."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import narrow_jax as nj


def problem(n, d, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice([-1.0, 1.0], size=(n, outputs))
    return rng.normal(size=(n, d)), y[:, 0] if outputs == 1 else y


def solved(n, d, widths, radius=0.1, seed=0, outputs=1, **options):
    x, y = problem(n, d, outputs, seed)
    return (
        x,
        y,
        nj.memorize(jax.random.key(seed), x, y, radius=radius, widths=widths, progress=False, **options),
    )


def distance(m):
    return np.sqrt(
        sum(
            np.sum((m.params[half][name] - w) ** 2)
            for half in ("plus", "minus")
            for name, w in m.center[half].items()
        )
    )


@pytest.mark.parametrize("widths", [(24,), (12, 12), (10, 10, 10), (9, 9, 9, 9)], ids=len)
def test_loss_is_zero_in_the_ball_and_certified(widths):
    x, y, m = solved(100, 8, widths)
    assert m.status == "solved"
    assert m.loss < 1e-16
    assert m.certificate.holds
    assert distance(m) + m.certificate.rho <= 0.1
    outputs = nj.models.pairwise_mlp_apply(jax.tree.map(jnp.asarray, m.params), x)
    assert np.allclose(np.ravel(outputs), y, atol=1e-3)  # float32 of a net with a large V


def test_several_outputs():
    _, y, m = solved(40, 8, (14, 14), outputs=3)
    assert m.certificate.holds
    assert m.residual.shape == y.shape
    assert m.certificate.rows == y.size


def test_low_dimension_takes_larger_weights_and_fewer_neurons_than_one_layer():
    x, _y, m = solved(200, 3, 2, radius=1.0)
    (width, _) = (len(m.params["v"]), None)
    assert m.certificate.holds
    assert m.weight_scale > 1
    assert 4 * width < nj.jacobian.admissible_width(x)  # neurons in all


def test_the_scale_of_the_start_may_be_given():
    _, _, m = solved(30, 6, (8, 8), weight_scale=1.5)
    assert m.weight_scale == 1.5
    with jax.enable_x64(True):
        start = nj.initializers.mirrored_mlp(
            jax.random.key(0), inputs=6, widths=(8, 8), scale=1.5, dtype=jnp.float64
        )
    assert np.array_equal(m.center["plus"]["w1"], start["plus"]["w1"])


def test_each_layer_may_have_its_activation():
    _, _, m = solved(30, 6, (8, 8), activation=("sin", "tanh"))
    assert m.certificate.holds


def test_equal_samples_count_once():
    x, y = problem(30, 6)
    m = nj.memorize(
        jax.random.key(0),
        np.vstack([x, x[:3]]),
        np.append(y, y[:3]),
        radius=0.1,
        widths=(8, 8),
        progress=False,
    )
    assert m.certificate.holds
    assert m.certificate.rows == 30
    assert m.residual.shape == (33, 1)


def test_a_zero_sample_is_learnt_where_the_net_is_not_zero_there():
    x, y = problem(20, 6)
    x[4] = 0.0
    with pytest.raises(ValueError, match="sample 4 is 0 and its label is not"):
        nj.memorize(jax.random.key(0), x, y, radius=0.1, widths=(8, 8), progress=False)
    m = nj.memorize(
        jax.random.key(0), x, y, radius=0.5, widths=(8, 8), activation=("softplus", "tanh"), progress=False
    )
    assert m.certificate.holds
    assert m.certificate.rows == 20


def test_contradictions_are_named():
    x, y = problem(20, 6)
    x[7] = x[2]
    y[7] = -y[2]
    with pytest.raises(ValueError, match="samples 2 and 7 are equal and their labels"):
        nj.memorize(jax.random.key(0), x, y, radius=0.1, widths=(8, 8), progress=False)


def test_opposite_samples_of_an_odd_net_depend_on_each_other():
    x, y = problem(20, 6)
    x[7] = -x[2]  # f(−x) = −f(x) for tanh without biases
    m = nj.memorize(jax.random.key(0), x, y, radius=0.1, widths=(8, 8), progress=False)
    assert m.status == "rank_deficient"
    assert "samples [2, 7] depend on each other" in m.message
    assert "widths (9, 9)" in m.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, "widths is empty, depth 0"),
        ({"widths": (4, 4)}, "too narrow: the Jacobian has rank at most 40 for 100 samples"),
        ({"widths": (30, 0)}, "the width of layer 2 is 0"),
        ({"widths": 0}, "depth is 0"),
        ({"widths": (30, 30), "width": 30}, "width is 30 and widths is"),
        ({"widths": (30, 30), "weight_scale": 0.0}, "weight_scale is 0.0"),
        ({"widths": (30, 30), "radius": 0.0}, "radius is 0"),
        ({"widths": (30, 30), "activation": ("tanh",)}, "activation has 1 entries"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options, message):
    x, y = problem(100, 6)
    with pytest.raises(ValueError, match=message):
        nj.memorize(jax.random.key(0), x, y, **({"radius": 0.1} | options), progress=False)


def test_a_bottleneck_names_the_admissible_widths():
    x, y = problem(30, 6, outputs=2)
    with pytest.raises(ValueError, match=r"the smallest admissible equal widths are \(\d+, \d+, \d+\)"):
        nj.memorize(jax.random.key(0), x, y, radius=0.1, widths=(20, 1, 20), progress=False)


def test_relu_is_solved_and_not_certified():
    _, _, m = solved(30, 6, (10, 10), radius=1.0, activation="relu")
    assert m.certificate is None or not m.certificate.holds
    if m.certificate:
        assert "jumps" in m.certificate.reason


# the certificate is honest


def perturbed(m, half, name, change):
    w = m.params[half][name].copy()
    w[0, 0] += change
    return {**m.params, half: {**m.params[half], name: w}}


def test_the_certificate_fails_where_it_should():
    x, y, m = solved(30, 6, (8, 8))
    check = nj.certificates.memorization
    assert check(m.params, m.center, x, y, radius=0.1).holds
    moved = check(perturbed(m, "plus", "w1", 0.05), m.center, x, y, radius=0.1)
    assert not moved.holds
    assert "no zero is proven" in moved.reason or "outside the ball" in moved.reason
    assert not check(m.params, m.center, x, -y, radius=0.1).holds
    assert "outside the ball" in check(m.params, m.center, x, y, radius=1e-3).reason
    assert (
        "σ_min(J) > 0 is not proven"
        in check(m.center, m.center, np.vstack([x, -x[:1]]), np.append(y, y[:1])).reason
    )


def test_dead_units_are_seen():
    x, y, m = solved(30, 6, (8, 8))
    dead = jax.tree.map(np.zeros_like, m.params["plus"])
    found = nj.certificates.memorization(
        {"plus": dead, "minus": dead, "v": m.params["v"]}, {"plus": dead, "minus": dead}, x, y
    )
    assert not found.holds
    assert "σ_min(J) > 0 is not proven" in found.reason


def exact_outputs(params, x):
    """F of a pair in 50 digits, and its Jacobian."""
    mp = mpmath.mp
    rows, values = [], []
    for sample in x:
        row, value = [], mp.mpf(0)
        for half, sign in (("plus", 1), ("minus", -1)):
            w1, w2 = params[half]
            a0 = [mp.mpf(float(entry)) for entry in sample]
            a1 = [mp.tanh(mp.fdot(a0, [w1[i, j] for i in range(w1.rows)])) for j in range(w1.cols)]
            a2 = [mp.tanh(mp.fdot(a1, [w2[i, j] for i in range(w2.rows)])) for j in range(w2.cols)]
            value += sign * mp.fdot(a2, params["v"])
            d2 = [sign * v * (1 - a * a) for v, a in zip(params["v"], a2, strict=True)]
            d1 = [(1 - a1[i] ** 2) * mp.fdot(d2, [w2[i, j] for j in range(w2.cols)]) for i in range(w1.cols)]
            row += [a * d for a in a0 for d in d1] + [a * d for a in a1 for d in d2]
        rows.append(row)
        values.append(value)
    return values, mp.matrix(rows)


@pytest.mark.parametrize("seed", range(3))
def test_exact_newton_in_fifty_digits_ends_within_rho(seed):
    x, y, m = solved(5, 3, (3, 3), radius=1.0, seed=seed)
    assert m.certificate.holds
    with mpmath.workdps(50):
        mp = mpmath.mp
        params = {
            half: [mp.matrix(m.params[half][name].tolist()) for name in ("w1", "w2")]
            for half in ("plus", "minus")
        } | {"v": [mp.mpf(float(entry)) for entry in m.params["v"][:, 0]]}
        moved = mp.mpf(0)
        start = [entry for half in ("plus", "minus") for w in params[half] for entry in w]
        for _ in range(4):
            values, jacobian = exact_outputs(params, x)
            r = mp.matrix([mp.mpf(float(t)) - value for t, value in zip(y, values, strict=True)])
            step = jacobian.T * mp.lu_solve(jacobian * jacobian.T, r)
            index = 0
            for half in ("plus", "minus"):
                for w in params[half]:
                    for i in range(w.rows):
                        for j in range(w.cols):
                            w[i, j] += step[index]
                            index += 1
        assert max(abs(entry) for entry in r) < mp.mpf(10) ** -40
        end = [entry for half in ("plus", "minus") for w in params[half] for entry in w]
        moved = mp.sqrt(sum((a - b) ** 2 for a, b in zip(start, end, strict=True)))
        assert moved <= m.certificate.rho
