"""Each inequality of docs/proofs/enclosure.md by itself: it holds in 60 digits, and without its error term it does not.

A bound is often far from tight, so that a whole interval may survive the loss of a term. Here every term stands in a
situation made so that it is needed.
"""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.jacobian import layers
from narrow_jax.linalg import DEVICE, HOST, compiled, symmetric
from narrow_jax.linalg import rounding as fl
from narrow_jax.spectra import enclosure

mp.mp.dps = 60
DRAWS = range(15)
FORM = {}


@pytest.fixture(autouse=True, params=["NumPy", "JAX"])
def double(x64, request, monkeypatch):
    """All bounds are those of float64, and of both forms of the formulas: what is drawn decides."""
    monkeypatch.setitem(FORM, "array", jnp.asarray if request.param == "JAX" else np.asarray)


def exact(array):
    return mp.matrix(np.atleast_2d(np.asarray(array)).tolist())


def draw(*shape, seed=0):
    return FORM["array"](np.random.default_rng(seed).standard_normal(shape))


def frobenius(matrix):
    return mp.sqrt(sum(entry**2 for entry in matrix))


def evaluated(matrix):
    return nj.jacobian.explicit(matrix).evaluate()


# most matrices here are 5 by 12, as those of 5 samples with 3 inputs in 4 units: one compilation for all
split_product, two_product = compiled(fl.split_product), compiled(fl.two_product)
slope_error = compiled(layers._slope_error, static_argnames="activation")
mv_bounded, rmv_bounded = compiled(lambda j, p: j.mv_bounded(p)), compiled(lambda j, u: j.rmv_bounded(u))
gram_of = jax.jit(lambda j: j.gram(DEVICE))


def one_hidden_net(seed, scale=1.0):
    return {"w": scale * draw(3, 4, seed=seed), "v": draw(2, 1, seed=seed + 1)}, draw(5, 3, seed=seed + 2)


def in_scale(j):
    return exact(j.matrix)


class TestProducts:
    """Step 0 and step 2: products whose error is known."""

    def test_split_product(self):
        needed = 0
        for seed in DRAWS:
            a, b = draw(3, 50, seed=seed), draw(50, 2, seed=seed + 100)
            product, error = map(np.asarray, split_product(a, b))
            distance = exact(a) * exact(b) - exact(product)
            for i in range(3):
                for c in range(2):
                    assert abs(distance[i, c]) <= mp.mpf(float(error[i, c]))
                    needed += abs(distance[i, c]) > fl.UNIT * abs(float(product[i, c])) / 2
        assert needed > 8, "without its second term the bound would be wrong"

    def test_two_product(self):
        a, b = draw(500), draw(500, seed=1)
        head, tail = two_product(a, b)
        missed = 0
        for x, y, h, t in zip(*map(np.asarray, (a, b, head, tail)), strict=True):
            whole = mp.mpf(x) * mp.mpf(y)
            assert abs(whole - mp.mpf(h) - mp.mpf(t)) <= mp.mpf(2) ** -74 * abs(whole)
            missed += abs(whole - mp.mpf(h)) > mp.mpf(2) ** -74 * abs(whole)
        assert missed > 400, "the head alone is not enough"

    @pytest.mark.parametrize("make", ["explicit", "pairwise"])
    def test_bounded_products(self, make):
        needed = 0
        for seed in DRAWS:
            J = nj.jacobian.pairwise(*one_hidden_net(seed))
            j = evaluated(J.dense()) if make == "explicit" else J.evaluate()
            if make == "explicit":
                matrix = in_scale(j)
            else:
                (layer,) = j.layers
                d, data = exact(layer.d[:, 0]), exact(layer.x)
                matrix = mp.matrix(5, 12)
                for r in range(5):
                    for a in range(3):
                        for b in range(4):
                            matrix[r, 4 * a + b] = data[r, a] * d[r, b]
            u, p = draw(5, seed=seed + 3), draw(12, seed=seed + 4)
            for found, true in (
                (mv_bounded(j, p), matrix * exact(p).T),
                (rmv_bounded(j, u), matrix.T * exact(u).T),
            ):
                distance = frobenius(true - exact(found[0]).T)
                assert distance <= mp.mpf(float(found[1]))
                needed += distance > 0
        assert needed > len(DRAWS), "the computed products are not exact"


class TestSensitivities:
    """Step 0: E bounds the error of D, and every one of its terms is needed somewhere."""

    @pytest.mark.parametrize("activation", ["tanh", "sin", "softplus"])
    def test_error_of_d(self, activation):
        slope = {"tanh": lambda z: mp.sech(z) ** 2, "sin": mp.cos, "softplus": lambda z: 1 / (1 + mp.exp(-z))}
        w, v, x = 30 * draw(20, 4), draw(2, 1, seed=1), draw(6, 20, seed=2)
        j = nj.jacobian.pairwise({"w": w, "v": v}, x, activation).evaluate()
        computed, stated = np.asarray(j.layers[0].d[:, 0]), np.asarray(j.layers[0].d_error[:, 0])
        z = exact(x) * exact(w)
        # D = v σ'(z) in the scale of the evaluated matrix: the inputs carry their own power of two
        scale = mp.mpf(2) ** (int(np.frexp(np.abs(x).max())[1]) - int(j.exponent))
        without_z, worst = 0, 0
        sigma = nj.activations.get(activation)
        for r in range(6):
            for c in range(4):
                true = scale * mp.mpf(float(v[c % 2, 0])) * (1 if c < 2 else -1) * slope[activation](z[r, c])
                distance = abs(true - mp.mpf(float(computed[r, c])))
                assert distance <= mp.mpf(float(stated[r, c]))
                worst = max(worst, distance)
                evaluation = (sigma.derivative_error + 1) * fl.UNIT * abs(float(computed[r, c]))
                without_z += distance > evaluation
        assert worst > 0
        assert without_z > 0, "the error of z is needed: at |z| = 100 it dominates"

    def test_a_derivative_error_that_is_too_small_is_noticed(self):
        """The constant of σ' is not idle: with a tenth of it E no longer bounds the error at exact z."""
        sigma = nj.activations.get("tanh")
        z = np.random.default_rng(0).uniform(-3, 3, 1000)
        computed = np.asarray(jax.jit(sigma.derivative)(z))
        true = [mp.sech(mp.mpf(float(t))) ** 2 for t in z]
        error = [abs(t - mp.mpf(float(c))) / t for t, c in zip(true, computed, strict=True)]
        stated = np.asarray(slope_error(sigma, z, np.zeros_like(z), computed))
        assert all(e * t <= mp.mpf(float(s)) for e, t, s in zip(error, true, stated, strict=True))
        assert max(error) > sigma.derivative_error / 10 * fl.UNIT

    def test_perturbation_covers_the_distance_of_the_matrices(self):
        for seed in range(5):
            params, x = one_hidden_net(seed, scale=3.0)
            j, v = nj.jacobian.pairwise(params, x).evaluate(), params["v"]
            z, scale = exact(x) * exact(params["w"]), mp.mpf(2) ** -int(j.exponent)
            inputs, units = np.asarray(j.layers[0].x), np.asarray(j.layers[0].d[:, 0])
            total = mp.mpf(0)
            for r in range(5):
                for c in range(4):
                    true = mp.mpf(float(v[c % 2, 0])) * (1 if c < 2 else -1) * mp.sech(z[r, c]) ** 2
                    for a in range(3):
                        entry = scale * true * mp.mpf(float(x[r, a]))
                        total += (entry - mp.mpf(float(inputs[r, a])) * mp.mpf(float(units[r, c]))) ** 2
            assert 0 < mp.sqrt(total) <= mp.mpf(float(gram_of(j).bounds.perturbation))


class TestGram:
    """Step 1: the majorant and the error of the Gram matrix."""

    @pytest.mark.parametrize("grades", [0, 6])
    def test_majorant_and_error(self, grades):
        for seed in range(4):
            params, x = one_hidden_net(seed)
            J = nj.jacobian.pairwise(params, x * 10.0 ** -np.linspace(0, grades, 5)[:, None])
            for j in (J.evaluate(), evaluated(draw(5, 12, seed=seed))):
                assert j.block_count == 1
                matrix = np.asarray(j.block(0))[:, :12]
                gram, bounds = gram_of(j)
                size = np.linalg.norm(np.abs(matrix) @ np.abs(matrix).T, 2)
                assert size <= float(bounds.majorant) <= 2 * size
                assert float(bounds.majorant) <= float(bounds.trace) <= 1.001 * np.sum(matrix**2)
                distance = exact(symmetric(np.asarray(gram))) - exact(matrix) * exact(matrix).T
                # blocks of the structured operator round each entry once more
                assert 0 < frobenius(distance) <= mp.mpf(float(bounds.error)) + 3 * fl.UNIT * mp.mpf(size)


def smallest_on_complement(k, u):
    """The smallest eigenvalue of K restricted to u⊥, in 60 digits."""
    rows = k.rows
    q, _ = mp.qr(mp.matrix([[u[i]] + [mp.mpf(i == c) for c in range(rows - 1)] for i in range(rows)]))
    basis = q[:, 1:rows]
    return min(mp.eigsy(basis.T * k * basis, eigvals_only=True))


class TestSeparation:
    """Step 3: what a completed Cholesky factorisation proves, and that it proves no more."""

    def test_completed_factorisation(self):
        too_far = 0
        for seed in range(12):
            # λ₂ is small against ‖K‖, so that its rounding matters
            left, right = (np.linalg.qr(draw(*shape, seed=seed))[0] for shape in ((5, 5), (12, 5)))
            j = evaluated(left @ np.diag([1, 0.5, 1e-6, 7e-8, 2e-8]) @ right.T)
            gram, matrix = j.gram(HOST), in_scale(j)
            operand = enclosure.Operand(HOST, j, gram.bounds, gram.matrix)
            u = left[:, -1]
            true = smallest_on_complement(matrix * matrix.T, [mp.mpf(float(t)) for t in u])
            low, high = 0.5 * float(true), 2 * float(true) + 1e-14
            for _ in range(60):  # the largest shift at which the factorisation completes
                middle = (low + high) / 2
                shift = self.shift(middle, gram)
                completed = HOST.cholesky(HOST.shifted(gram.matrix, shift.c, u, shift.beta))[1]
                low, high = (middle, high) if completed else (low, middle)
            beta = enclosure._shifted_bound(operand, jnp.asarray(u), self.shift(low, gram))
            assert mp.mpf(float(beta)) <= true
            too_far += mp.mpf(low) > true
        assert too_far > 0, "the shift itself, without the error terms, would be wrong"

    @staticmethod
    def shift(beta, gram):
        c = 4.0 ** np.ceil(np.log2(4 * beta) / 2)
        return enclosure.Shift(jnp.asarray(beta), jnp.asarray(c), gram.bounds.trace * 1.01 + 1.01 * c)

    @pytest.mark.parametrize("kappa", [1e2, 1e6, 1e9])
    def test_preconditioned(self, kappa):
        for seed in range(4):
            left, right = (np.linalg.qr(draw(*shape, seed=seed))[0] for shape in ((5, 5), (12, 5)))
            j = evaluated(left @ np.diag(np.geomspace(1, 1 / kappa, 5)) @ right.T)
            matrix, u = in_scale(j), left[:, -1]
            gram = j.gram(HOST)
            operand = enclosure.Operand(HOST, j, gram.bounds, gram.matrix)
            beta = enclosure.preconditioned(operand, operand.triangle()[0], jnp.asarray(u))
            true = smallest_on_complement(matrix * matrix.T, [mp.mpf(float(t)) for t in u])
            assert 0 < mp.mpf(float(beta)) <= true
            assert float(beta) > 0.99 * float(true)


class TestLowerBound:
    """Step 4, on matrices of which all is known."""

    def test_c_is_needed(self):
        """A vector halfway off: ν alone is above σ_min."""
        j = evaluated(np.diag([2.0, 1.0]))
        for angle in (1e-2, 1e-1, 0.3):
            u = np.array([np.sin(angle), np.cos(angle)])
            pair = enclosure.measure(j, jnp.asarray(u))
            matrix = np.asarray(j.matrix)
            other = np.array([u[1], -u[0]])
            beta = jnp.asarray(float(np.sum((matrix.T @ other) ** 2)) * (1 - 1e-15))
            sigma = float(np.min(np.diag(matrix)))
            assert float(enclosure.lower_bound(pair, beta)) <= sigma
            careless = pair._replace(c=jnp.zeros(()))
            assert float(enclosure.lower_bound(careless, beta)) > sigma

    def test_b_is_needed(self):
        """Jᵀ = [[N, c], [b, M]] = [[1, ½], [4, 2]] is singular, and without b nobody would know."""
        pair = enclosure.measure(evaluated(np.eye(2)), jnp.array([1.0, 0.0]))
        pair = pair._replace(nu=jnp.asarray(1.0), c=jnp.asarray(0.5), b=jnp.asarray(4.0))
        beta = jnp.asarray(0.5**2 + 2.0**2)
        assert float(enclosure.lower_bound(pair, beta)) == 0.0
        assert float(enclosure.lower_bound(pair._replace(b=jnp.zeros(())), beta)) > 0.9

    def test_rounding_of_the_residual_is_needed(self):
        """B and C of an accurate pair are the rounding of S and y: the computed residual alone is below the truth."""
        below = 0
        for seed in DRAWS:
            j = evaluated(draw(5, 12, seed=seed))
            u = np.linalg.svd(np.asarray(j.matrix))[0][:, -1]
            pair, matrix = enclosure.measure(j, jnp.asarray(u)), in_scale(j)
            p, v = exact(pair.right).T, exact(pair.vector).T
            image = matrix.T * v
            b = frobenius(image - p * ((p.T * image)[0] / (p.T * p)[0])) / frobenius(v)
            back = matrix * p
            c = frobenius(back - v * ((v.T * back)[0] / (v.T * v)[0])) / frobenius(p)
            assert b <= mp.mpf(float(pair.b))
            assert c <= mp.mpf(float(pair.c))
            assert frobenius(image) / frobenius(v) <= mp.mpf(float(pair.upper))
            nu = (p.T * image)[0] / (frobenius(p) * frobenius(v))
            assert mp.mpf(float(pair.nu)) <= nu
            below += frobenius(exact(pair.residual)) < c
        assert below > 0, "without the error of the products C would be too small"

    def test_whole_interval_on_known_spectra(self):
        for seed in DRAWS:
            rows, columns = (2, 2) if seed % 5 == 0 else (5, 12)
            j = nj.jacobian.explicit(
                draw(rows, columns, seed=seed) * 10.0 ** -np.linspace(0, seed % 7, rows)[:, None]
            )
            k = exact(j.matrix) * exact(j.matrix).T
            sigma = mp.sqrt(min(mp.eigsy(k, eigvals_only=True)))
            s = nj.sigma_min(j)
            assert s.certified
            assert mp.mpf(float(s.lower)) <= sigma <= mp.mpf(float(s.upper))
