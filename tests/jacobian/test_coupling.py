"""Functions whose rows do not come from one sample each: refused by name, and never right in a traced program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.jacobian import autodiff

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
W = {"w": RNG.normal(size=(3, 4)).astype(np.float32), "v": RNG.normal(size=(4, 2)).astype(np.float32)}
STILL = {**W, "v": np.zeros((4, 2), np.float32)}
RECURRENT = {name: RNG.normal(size=(rows, 4)).astype(np.float32) / 2 for name, rows in (("a", 4), ("b", 3))}


def net(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def rnn(p, x):
    def step(h, z):
        h = jnp.tanh(h @ p["a"] + z @ p["b"])
        return h, h

    return jax.lax.scan(step, jnp.zeros(4, x.dtype), x)[1][:, 0]


def mean(y):
    return jnp.mean(y, axis=0, keepdims=True)


def hidden_in_the_derivative(p, x):
    y = net(p, x)
    return y + (mean(y) - jax.lax.stop_gradient(mean(y)))


def attention(p, x):
    y = net(p, x)
    return jax.nn.softmax(y @ y.T) @ y


COUPLED = {
    "scan over samples": (rnn, RECURRENT),
    "mean": (lambda p, x: net(p, x - mean(x)), W),
    "mean where the output is 0": (lambda p, x: net(p, x - mean(x)), STILL),
    "softmax": (lambda p, x: jax.nn.softmax(net(p, x), axis=0), W),
    "running sum": (lambda p, x: jnp.cumsum(net(p, x), axis=0), W),
    "running sum from the end": (lambda p, x: jnp.cumsum(net(p, x)[::-1], axis=0)[::-1], W),
    "sort": (lambda p, x: jnp.sort(net(p, x), axis=0), W),
    "another order": (lambda p, x: net(p, x)[::-1], W),
    "number of samples": (lambda p, x: net(p, x) * len(x), W),
    "place in the batch": (lambda p, x: net(p, x) + jnp.arange(len(x), dtype=x.dtype)[:, None], W),
    "attention": (attention, W),
    "last row": (lambda p, x: (y := net(p, x)).at[-1].add(1e-3 * y[0]), W),
    "last output": (lambda p, x: (y := net(p, x)).at[:, 1].add(1e-5 * mean(y)[0, 1]), W),
    "one part in ten million": (lambda p, x: (y := net(p, x)) + 1e-7 * mean(y), W),
    "derivative alone": (hidden_in_the_derivative, W),
    "one sample alone is another": (lambda p, x: net(p, x) * (1.0 if len(x) > 1 else 2.0), W),
}


@pytest.mark.parametrize("case", COUPLED)
def test_coupled_samples_are_refused_by_name(case):
    apply_fn, params = COUPLED[case]
    with pytest.raises(
        ValueError,
        match=r"apply_fn couples samples: .*where each sample is alone.*train=False.*jax.vmap does",
    ):
        autodiff(apply_fn, params, X, mode="forward" if len(case) % 2 else "reverse")


def test_the_message_says_which_row_and_both_numbers():
    def last(p, x):
        y = x @ p
        return y.at[2:].add(10.0 * y[0])

    x = np.eye(3)
    message = (
        r"samples: row 2 of apply_fn\(params, x\) is 13, and 3 where each sample is alone, so there is no"
    )
    with pytest.raises(ValueError, match=message):
        autodiff(last, np.array([1.0, 2.0, 3.0]), x)
    with pytest.raises(
        ValueError, match=r"samples: the derivative of row \d of .* where each sample is alone"
    ):
        autodiff(hidden_in_the_derivative, W, X)


@pytest.mark.parametrize(("rows", "found"), [(6, "6 samples and"), (1, None)])
def test_one_sample_cannot_be_coupled(rows, found):
    assert autodiff(rnn, RECURRENT, X[:1]).shape == (1, 28)
    with pytest.raises(ValueError, match=r"2 numbers for each of 6 samples and shape \(1, 4\) for one"):
        autodiff(lambda p, x: x @ p["w"] if len(x) == 1 else net(p, x), W, X)


def test_batch_normalisation_is_seen_where_the_output_is_still_0():
    model = nj.models.ResNet(channels=(2,), blocks=(1,), outputs=1, head="pairwise")
    x = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    variables["params"] = nj.models.mirror(variables["params"], model.labels)

    def train(v, x):
        return model.apply(v, x, train=True, mutable=["batch_stats"])[0]

    assert float(jnp.abs(train(variables, x)).max()) < 1e-6
    with pytest.raises(ValueError, match=r"couples samples: .*train=False"):
        autodiff(train, variables, x)
    J = autodiff(lambda v, x: model.apply(v, x, train=False), variables, x)
    assert J.shape == (3, sum(leaf.size for leaf in jax.tree.leaves(variables["params"])))


def float32(p, x):
    return net(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), p), x.astype(jnp.float32))


UNCOUPLED = {
    "net": (net, W),
    "net whose output is 0": (net, STILL),
    "mirrored": (
        nj.models.pairwise_apply,
        nj.initializers.mirrored_lecun(jax.random.key(0), inputs=3, width=4),
    ),
    "large": (lambda p, x: 1e12 * net(p, x), W),
    "tiny": (lambda p, x: 1e-12 * net(p, x), W),
    "cancelling": (lambda p, x: (net(p, x) + 1e6) - 1e6, W),
    "float32": (float32, W),
    "bfloat16": (nj.precision.bfloat16(net), W),
    "squeezed": (lambda p, x: jnp.squeeze(net(p, x)[:, :1]), W),
    "normalised by sample": (lambda p, x: jax.nn.softmax(net(p, x), axis=1), W),
    "integers and keys beside": (
        lambda p, x: net(p, x) * p["count"],
        {**W, "count": 3, "key": jax.random.key(0)},
    ),
}


@pytest.mark.parametrize("case", UNCOUPLED)
def test_rounding_is_no_coupling(case):
    apply_fn, params = UNCOUPLED[case]
    assert autodiff(apply_fn, params, X, wrt=("w", "v")).shape[0] in (6, 12)


@pytest.mark.parametrize(
    ("case", "wide"), [("scan over samples", False), ("net", False), ("derivative alone", True)]
)
def test_a_traced_program_gives_the_same_jacobian_or_none(case, wide):
    apply_fn, params = {**COUPLED, **UNCOUPLED}[case]

    @jax.jit
    def traced(params, x):
        return nj.sigma_min(autodiff(apply_fn, params, x))

    with jax.enable_x64(wide):
        s = traced(params, X)
        if case != "net":
            assert np.isnan(float(s.value))
            assert not s.certified
            assert s.status == "not_converged"
            assert (float(s.lower), float(s.upper)) == (0.0, np.inf)
        else:
            eager = nj.sigma_min(autodiff(apply_fn, params, X, mode="forward"))
            assert eager.certified
            assert float(s.lower) <= eager.upper
            assert eager.lower <= float(s.upper)


def test_products_of_a_traced_operator_are_nan_too():
    with jax.enable_x64(True):
        gram = jax.jit(lambda p, x: autodiff(rnn, p, x).gram())(RECURRENT, X)
        blocked = jax.jit(lambda p, x: autodiff(rnn, p, x, memory_budget=6000).rmv(jnp.ones(6)))(RECURRENT, X)
    assert np.isnan(gram).any()
    assert np.isnan(blocked).all()
