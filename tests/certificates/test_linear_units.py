"""Theorem 2 and its corollaries at constructed local minima, and what is refused."""

import itertools

import jax
import numpy as np
import pytest
from descent import jacobian, outputs, to_stationarity

import narrow_jax as nj
from narrow_jax.activations import leaky_relu
from narrow_jax.certificates import basis_function_bound, linear_units, regression_value, separated_params

pytestmark = pytest.mark.usefixtures("x64")
LINEAR = leaky_relu(1.0)


def data(samples=30, inputs=3, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=(samples, inputs))) + 0.1, rng.normal(size=(samples, outputs))


def least_squares(basis, y):
    return float(np.sum((y - basis @ np.linalg.lstsq(basis, y, rcond=1e-11)[0]) ** 2)) / 2


def subsets(layers):
    return [s for size in range(len(layers) + 1) for s in itertools.combinations(layers, size)]


def features(params, x, layer):
    for index in range(1, layer + 1):
        x = np.maximum(x @ params[f"w{index}"], 0)
    return x


def fixed_edges(params, units, widths, first_layer, strong):
    """Which weights separation keeps at 0, for sets that are the first units of each layer."""
    frozen = {name: np.zeros(w.shape, bool) for name, w in params.items()}
    for layer in range(first_layer + 2, len(widths)):
        frozen[f"w{layer}"][:units, units:] = True
        if strong:
            frozen[f"w{layer}"][units:, :units] = True
    return frozen


def local_minimum(widths, first_layer, strong=False, seed=0, checked=True):
    """Params with separated linear units, and targets that make them a minimum with the separated edges fixed.

    The error is small and orthogonal to the derivatives and to the features of layers t … H, as Lemma 4 says.
    """
    x, noise = data(outputs=widths[-1], seed=seed)
    params = separated_params(jax.random.key(seed), x, widths, first_layer, strong=strong)
    frozen = fixed_edges(params, widths[-1], widths, first_layer, strong)
    free = ~np.concatenate([frozen[name].ravel() for name in params])
    layers = [0] if strong else range(first_layer, len(widths))
    basis = np.hstack([np.kron(features(params, x, layer), np.eye(widths[-1])) for layer in layers])
    columns = np.hstack([basis, jacobian(params, x)[:, free]])
    error = noise.ravel() - columns @ np.linalg.lstsq(columns, noise.ravel(), rcond=1e-11)[0]
    y = np.asarray(outputs(params, x)) + 0.01 * error.reshape(noise.shape)
    loss = nj.certificates.stationary_value(params, x, y).loss
    rng = np.random.default_rng(seed)
    for _ in range(20 * checked):
        moved = {name: w + 1e-4 * rng.normal(size=w.shape) * ~frozen[name] for name, w in params.items()}
        assert np.sum((np.asarray(outputs(moved, x)) - y) ** 2) / 2 > loss
    return params, x, y


@pytest.mark.parametrize("layers", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_regression_value_is_least_squares(layers):
    x, y = data(outputs=2)
    params = {
        name: np.random.default_rng(1).normal(size=shape)
        for name, shape in {"w1": (3, 4), "w2": (4, 2), "w3": (2, 2)}.items()
    }
    basis = np.hstack([np.zeros((len(x), 0)), *(features(params, x, layer) for layer in layers)])
    assert regression_value(params, x, y, layers) == pytest.approx(least_squares(basis, y), rel=1e-10)


@pytest.mark.parametrize(("widths", "first_layer"), [((4, 1), 0), ((5, 2), 0), ((4, 5, 2), 1)])
def test_theorem_2_at_local_minima(widths, first_layer):
    """One layer above t: weak separation fixes no edge, so these are local minima of the whole loss.

    For t = 1 they have what the proof uses of a minimum (Lemma 4), not all of it.
    """
    params, x, y = local_minimum(widths, first_layer, checked=first_layer == 0)
    assert nj.certificates.stationary_value(params, x, y).gap < 1e-20
    layers = tuple(range(first_layer, len(widths)))
    for subset in subsets(layers):
        b = basis_function_bound(params, x, y, subset, first_layer)
        assert b.holds, b.reason
        assert b.regression == pytest.approx(regression_value(params, x, y, subset), rel=1e-12)
        assert b.improvement >= -1e-12
        basis = np.hstack([np.zeros((len(x), 0)), *(features(params, x, layer) for layer in subset)])
        hidden = jacobian(params, x)[:, : -params[f"w{len(widths)}"].size]
        columns = np.hstack([np.kron(basis, np.eye(y.shape[1])), hidden])
        assert b.bound == pytest.approx(least_squares(columns, y.reshape(-1, 1)), rel=1e-8)
        if subset == layers:
            assert b.loss == pytest.approx(b.bound, rel=1e-9)


@pytest.mark.parametrize("widths", [(4, 4, 1), (4, 5, 2), (3, 3, 3, 1)])
def test_corollary_1_where_the_separated_edges_are_fixed(widths):
    params, x, y = local_minimum(widths, 0)
    for subset in subsets(range(len(widths))):
        b = basis_function_bound(params, x, y, subset, 0, separation="fixed")
        assert b.holds, b.reason
    assert b.layers == tuple(range(len(widths)))
    assert b.loss == pytest.approx(b.bound, rel=1e-8)


def test_corollary_2_speaks_of_the_two_ends():
    params, x, y = local_minimum((4, 4, 1), 0, strong=True)
    for subset in subsets((0, 2)):
        b = basis_function_bound(params, x, y, subset, 0, separation="strong")
        assert b.units.holds
        assert b.units.strong
    with pytest.raises(
        ValueError, match=r"layers are \(1,\); expected a subset of \(0, 2\), strong separation"
    ):
        basis_function_bound(params, x, y, (1,), 0, separation="strong")


def test_away_from_a_minimum_the_loss_is_above_the_bound():
    x, y = data()
    params = separated_params(jax.random.key(0), x, (4, 1), 0)
    b = basis_function_bound(params, x, y, (0, 1), 0)
    assert not b.holds
    assert b.units.holds
    assert "not a differentiable local minimum" in b.reason


@pytest.mark.parametrize("widths", [(3, 2), (4, 3, 2)])
def test_deep_linear_net_reaches_the_global_minimum(widths):
    x, y = data(outputs=2)
    rng = np.random.default_rng(5)
    sizes = (3, *widths)
    start = {f"w{i}": rng.normal(size=sizes[i - 1 : i + 1]) for i in range(1, len(widths) + 1)}
    params = to_stationarity(start, x, y, LINEAR)
    s = nj.certificates.stationary_value(params, x, y, LINEAR)
    assert s.holds
    assert s.loss == pytest.approx(least_squares(x, y), rel=1e-9)
    assert regression_value(params, x, y, (0,), LINEAR) == pytest.approx(s.loss, rel=1e-9)
    for subset in subsets(range(len(widths))):
        assert basis_function_bound(params, x, y, subset, 0, LINEAR).holds
    units = linear_units(params, x, 0, LINEAR)
    assert [len(chosen) for chosen in units.sets] == list(widths[:-1])


def test_every_net_qualifies_with_t_equal_to_the_depth():
    x, _ = data()
    params = {"w1": -np.ones((3, 2)), "w2": np.ones((2, 1))}
    assert linear_units(params, x, 1) == (
        True,
        "every layer above 1 has at least 1 weakly separated linear units",
        (),
        1,
        False,
    )
    dead = linear_units(params, x, 0)
    assert not dead.holds
    assert dead.reason == "layer 1 has 0 weakly separated linear units; 1 are needed, one an output"


def brute_force_sets(params, x, first_layer, strong):
    """The largest sets by trying all of them."""
    depth = len(params) - 1
    pre = [
        features(params, x, layer - 1) @ params[f"w{layer}"] for layer in range(first_layer + 1, depth + 1)
    ]
    linear = [np.flatnonzero((z >= 0).all(axis=0)) for z in pre]
    best = None
    for sets in itertools.product(*(subsets(units) for units in linear)):
        ok = True
        for layer, (here, above) in enumerate(itertools.pairwise(sets), first_layer + 1):
            w = params[f"w{layer + 1}"]
            outside = np.setdiff1d(np.arange(w.shape[1]), above)
            ok &= not w[np.ix_(here, outside)].any()
            if strong:
                others = np.setdiff1d(np.arange(w.shape[0]), here)
                signals = features(params, x, layer)[:, others].any(axis=0)
                ok &= not w[np.ix_(others[signals], above)].any()
        if ok and (best is None or sum(map(len, sets)) > sum(map(len, best))):
            best = sets
    return best


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_sets_are_the_largest(seed, strong):
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(size=(5, 2)))
    params = {
        f"w{i}": rng.normal(size=shape) * (rng.random(shape) < 0.5)
        for i, shape in enumerate([(2, 3), (3, 3), (3, 3), (3, 1)], start=1)
    }
    params = {name: np.where(rng.random(w.shape) < 0.6, np.abs(w), w) for name, w in params.items()}
    found = linear_units(params, x, 0, strong=strong).sets
    assert tuple(map(tuple, found)) == brute_force_sets(params, x, 0, strong)


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("first_layer", [0, 1, 2, 3])
def test_constructed_params_qualify(first_layer, strong):
    x, _ = data()
    params = separated_params(jax.random.key(3), x, (5, 4, 5, 2), first_layer, units=3, strong=strong)
    found = linear_units(params, x, first_layer, strong=strong)
    assert found.holds
    assert all(set(range(3)) <= set(chosen.tolist()) for chosen in found.sets)
    if strong and first_layer == 0:
        params["w2"][4, 0] = 1.0  # an edge from outside into the sets
        params["w1"][:, 4] = 1.0
        assert 0 in linear_units(params, x, 0).sets[1]
        assert (
            0 not in linear_units(params, x, 0, strong=True).sets[1]
            or 4 in linear_units(params, x, 0, strong=True).sets[0]
        )


X, PARAMS = np.ones((4, 3)), {"w1": np.ones((3, 2)), "w2": np.ones((2, 1))}
BAD = {
    "layer of S": (
        lambda: regression_value(PARAMS, X, np.ones((4, 1)), [2]),
        "a layer of S is 2; expected 0",
    ),
    "negative": (
        lambda: regression_value(PARAMS, X, np.ones((4, 1)), [-1]),
        "is -1; expected an integer ≥ 0",
    ),
    "t": (lambda: linear_units(PARAMS, X, 2), "first_layer is 2; expected 0"),
    "below t": (lambda: basis_function_bound(PARAMS, X, np.ones((4, 1)), [0], 1), r"layers are \(0,\)"),
    "separation": (
        lambda: basis_function_bound(PARAMS, X, np.ones((4, 1)), [0], 0, separation="week"),
        "did you mean 'weak'",
    ),
    "tanh": (lambda: linear_units(PARAMS, X, 0, "tanh"), "not positively homogeneous"),
    "y": (lambda: regression_value(PARAMS, X, np.ones((3, 1)), [0]), r"y has shape \(3, 1\)"),
    "units": (lambda: separated_params(jax.random.key(0), X, (2, 1), 0, units=3), "fewer units than that"),
    "signs": (lambda: separated_params(jax.random.key(0), -X, (2, 1), 0), "shift x, or choose"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
