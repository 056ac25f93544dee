"""Wrong answers in silence."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks._fault_cases import (
    NET,
    RNG,
    P,
    X,
    Y,
    case,
    equals,
    number,
    relative,
    rotation,
    says,
    shell,
)


@case("W1 Flax MLP", "ValueError that names by_path", says("by_path"))
def _() -> Any:
    net = nj.models.MLP(widths=(8, 1), activation="tanh")
    tx = nj.constraints.regime(optax.adam(0.1), 1e-6)
    result = nj.fit(net.apply, net.init(jax.random.key(0), X), tx, (X, Y), steps=20)
    return f"moves, distance {float(result.history['distance'][-1])}"


@case("W1 optax.flatten", "ValueError that names by_path", says("by_path"))
def _() -> Any:
    return len(optax.flatten(nj.constraints.regime(optax.adam(0.1), 1e-6)).init(P))


@case("W1 mirror", "ValueError", says("by_path"))
def _() -> Any:
    return len(nj.models.mirror({"dense": {"kernel": jnp.ones((3, 4))}}, nj.constraints.by_name))


@case("W2 ema after the regime", "the history tells the true distance, above 1", number(1.01, 10))
def _() -> Any:
    tx = optax.chain(nj.constraints.regime(optax.adam(0.1), 0.1), optax.ema(0.9))
    return relative(nj.fit(NET, P, tx, (X, Y), steps=60))


@case("W2 going on", "the second fit keeps the first one's ball", number(0.0, 0.0501))
def _() -> Any:
    tx = nj.constraints.regime(optax.adam(0.1), 0.05)
    first = nj.fit(NET, P, tx, (X, Y), steps=20)
    second = nj.fit(NET, first.params, tx, (X, Y), steps=20, opt_state=first.opt_state)
    return f"{float(jnp.linalg.norm(second.params['w'] - P['w'])):.4f}"


@case("W3 one logit", "no accuracy, or the true one", lambda outcome: outcome != "0.500")
def _() -> Any:
    labels = (X[:, 0] > 0).astype(np.int32)

    def loss(outputs: Any, y: Any) -> Any:
        return jnp.mean(optax.losses.sigmoid_binary_cross_entropy(outputs[:, 0], y.astype(outputs.dtype)))

    history = nj.fit(NET, P, optax.adam(0.1), (X, labels), steps=100, loss=loss).history
    return f"{history['accuracy'][-1]:.3f}" if "accuracy" in history else "none"


@case("W4 two monitors", "ValueError", says("sigma_min"))
def _() -> Any:
    watch = nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)
    return len(nj.fit(NET, P, optax.adam(0.1), (X[:4], Y[:4]), steps=2, monitors=[watch, watch]).history)


@case("W4 monitor 'loss'", "ValueError", says("loss"))
def _() -> Any:
    watch = nj.monitors.Monitor("loss", lambda p, x: (), lambda s, p, x: (s, jnp.zeros(())))
    return nj.fit(NET, P, optax.adam(0.1), (X, Y), steps=2, monitors=[watch]).history["loss"].tolist()


@case("W5 normalizer", "0.0: from raw pixels to what the net saw", equals("0.0"))
def _() -> Any:
    from sklearn.datasets import load_digits

    data: Any = nj.data.load("digits", normalize="standardize")
    return float(np.abs(data.normalizer.apply(load_digits().data) - data.x).max())


@case("W5 columns", "1.0: each column of deviation one", number(0.999, 1.001))
def _() -> Any:
    x = np.random.default_rng(0).normal(size=(50, 2)) * [1e-5, 1.0]
    return f"{nj.data.standardize(x).apply(x).std(axis=0)[0]:.4f}"


@case("W6 a second run", "refused, the first is still there", equals("2, kept"))
def _() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--samples", "20", "--steps", "2", "--width", "120", "--out", f"{folder}/run", "--json"]
        shell("train", *options)
        before = Path(folder, "run/model.safetensors").read_bytes()
        done = shell("train", *options, "--radius", "1")
        kept = Path(folder, "run/model.safetensors").read_bytes() == before
        return f"{done.returncode}, {'kept' if kept else 'replaced'}"


@case("W7 bfloat16", "bfloat16 comes back", equals("bfloat16"))
def _() -> Any:
    from narrow_jax.checkpoints import runs

    with tempfile.TemporaryDirectory() as folder:
        runs.save(folder, {"w": jnp.ones(2, jnp.bfloat16)}, {})
        return str(runs.load(folder)[0]["w"].dtype)


@case("W7 int64 labels", "ValueError", says("int32"))
def _() -> Any:
    def loss(outputs: Any, y: Any) -> Any:
        return jnp.mean(outputs) * 0 + y[0].astype(jnp.float32)

    labels = np.full(64, 2**31 + 5)
    return nj.fit(NET, P, optax.sgd(0.1), (X, labels), steps=1, loss=loss).history["loss"][0]


@case("W8 sum of singular values", "0: as jnp.linalg.svd differentiates", number(0, 1e-4))
def _() -> Any:
    a = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)
    ours = jax.grad(lambda a: nj.singular_values(nj.jacobian.explicit(a)).values.sum())(a)
    true = jax.grad(lambda a: jnp.linalg.svd(a, full_matrices=False, compute_uv=False).sum())(a)
    return f"{float(jnp.abs(ours - true).max()):.1e}"


@case("W8 condition number, n > p", "0: as jnp.linalg.svd", number(0, 1e-3))
def _() -> Any:
    a = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    ours = jax.grad(lambda a: nj.sigma_min(nj.jacobian.explicit(a)).sigma_max)(a)
    true = jax.grad(lambda a: jnp.linalg.svd(a, full_matrices=False, compute_uv=False)[0])(a)
    return f"{float(jnp.abs(ours - true).max()):.1e}"


@case("W9 hessian", "0: as jnp.linalg.svd", number(0, 1e-2))
def _() -> Any:
    a = jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32)
    ours = jax.hessian(lambda a: nj.sigma_min(nj.jacobian.explicit(a)).value)(a)
    true = jax.hessian(lambda a: jnp.linalg.svd(a, full_matrices=False, compute_uv=False)[-1])(a)
    return f"{float(jnp.abs(ours - true).max()):.1e}"


@case("W10 coupled samples", "ValueError", says("couples samples"))
def _() -> Any:
    def rnn(p: Any, x: Any) -> Any:
        def step(h: Any, z: Any) -> Any:
            h = jnp.tanh(h @ p["a"] + z @ p["b"])
            return h, h

        return jax.lax.scan(step, jnp.zeros(4), x)[1][:, 0]

    params = {"a": jnp.eye(4) / 2, "b": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)}
    s = nj.sigma_min(nj.jacobian.autodiff(rnn, params, X[:6]))
    return f"{float(s.value):.4f} {s.status}"


@case(
    "W11 batch of condition numbers",
    "right, inf or NaN",
    lambda o: all(
        not np.isfinite(v) or abs(v / t - 1) < 0.01
        for v, t in zip(json.loads(o), (1e3, 1e6, 1e9, 1e12), strict=True)
    ),
)
def _() -> Any:
    q = rotation(np.arange(1.0, 7.0))
    with jax.enable_x64(True):
        a = jnp.stack([q @ np.diag(np.geomspace(1, 1 / k, 6)) @ q.T for k in (1e3, 1e6, 1e9, 1e12)])
        values = jax.vmap(lambda a: nj.condition_number(nj.jacobian.explicit(a)))(a)
        return json.dumps([float(f"{v:.4g}") for v in values.tolist()])


@case("W12 bfloat16 inside", "not certified", lambda o: "certified" not in o)
def _() -> Any:
    net = nn.Dense(2, dtype=jnp.bfloat16)
    params = net.init(jax.random.key(0), X[:3])
    statuses = (
        nj.sigma_min(nj.jacobian.autodiff(net.apply, params, X[:3], mode=mode)).status
        for mode in ("reverse", "forward")
    )
    return ", ".join(statuses)


@case("W13 tiny labels", "not proven", equals("False"))
def _() -> Any:
    x = np.ldexp(np.eye(4), -398)
    params = {
        "w": np.tile(np.random.default_rng(0).normal(size=(4, 2)), 2),
        "v": np.ldexp(np.ones((2, 1)), -398),
    }
    y = np.ldexp(np.full((4, 1), 1000.0), -398)
    return nj.certificates.memorization(params, params, x, y).holds


@case("W13 tiny samples", "no infinite region", lambda o: o != "inf")
def _() -> Any:
    x = np.ldexp(np.random.default_rng(0).normal(size=(4, 4)), -565)
    return nj.certificates.nice_region(P | {"w": P["w"][:4]}, x).radius


@case("W14 rescaled layers", "the same for a = 1 and 2²⁷", lambda o: len(set(o.split("; "))) == 1)
def _() -> Any:
    rng = np.random.default_rng(0)
    x, y, w1 = rng.normal(size=(20, 3)), rng.normal(size=(20, 1)), rng.normal(size=(3, 4))
    w2 = np.linalg.lstsq(np.maximum(x @ w1, 0), y, rcond=None)[0]
    found = (nj.certificates.stationary_value({"w1": w1 * a, "w2": w2 / a}, x, y) for a in (1.0, 2.0**27))
    return "; ".join(f"{s.holds} {s.value:.6g} rank {s.ranks and s.ranks['nr']} {s.status}" for s in found)


@case("W15 the start vector as singular vector", "1, 3, 3", equals("1, 3, 3"))
def _() -> Any:
    from narrow_jax.linalg import lanczos

    q = rotation(lanczos.start_vector(3))
    J = nj.jacobian.explicit(q @ np.diag([2.0, 1.0, 3.0]))
    s = nj.sigma_min(J)
    return f"{float(s.value):.6g}, {float(s.sigma_max):.6g}, {float(nj.condition_number(J)):.6g}"


@case("W16 x spans R^d", "not said: two samples in R⁵", equals("False"))
def _() -> Any:
    audit = nj.certificates.assumptions(RNG.normal(size=(2, 5)), np.ones(2), width=4)
    return ("x spans R^d", "holds") in [check[:2] for check in audit.checks]


@case("W16 parallel samples", "all 50 pairs of exact multiples found", equals("50"))
def _() -> Any:
    # all samples at one height, half a unit of the ninth decimal: a pair is rounded apart, others lie between
    rng, height, found = np.random.default_rng(0), 0.1234567895, 0
    for _ in range(50):
        angles = rng.uniform(0, 2 * np.pi, 40)
        circle = np.sqrt(1 - height**2) * np.array([np.cos(angles), np.sin(angles)])
        x = np.column_stack([*circle, np.full(40, height)]) * rng.uniform(0.5, 2, (40, 1))
        x[7] = rng.uniform(2, 9) * x[31]
        audit = nj.certificates.assumptions(x, np.ones(40), width=40)
        found += next(check.verdict == "fails" for check in audit.checks if "parallel" in check.assumption)
    return found


@case("W17 wrong derivative", "ValueError", says("derivative"))
def _() -> Any:
    bad = nj.activations.Activation(
        "bad",
        jnp.tanh,
        jnp.cos,
        lipschitz=1.0,
        min_derivative=-1.0,
        sup_second_derivative=1.0,
        derivative_error=9.0,
    )
    return nj.sigma_min(nj.jacobian.pairwise(P, X[:8], bad)).status


@case("W17 wrong S₂", "ValueError", says("second"))
def _() -> Any:
    tanh = nj.activations.get("tanh").__dict__ | {"name": "mine", "sup_second_derivative": 0.1}
    return nj.certificates.nice_region(P, X[:8], nj.activations.Activation(**tanh)).holds


@case("W17 σ(0) = 1e-60", "named", lambda o: "σ(0)" in o)
def _() -> Any:
    smooth = nj.activations.smooth_leaky_relu(0.5, 1.0)
    fields = smooth.__dict__ | {
        "name": "shifted",
        "fn": lambda z: smooth.fn(z) + 1e-60,
        "zero_only_at_zero": False,
    }
    params = {"w1": 8 * jnp.eye(2), "w2": jnp.zeros((2, 1))}
    c = nj.certificates.pyramidal(
        params, jnp.eye(2), jnp.full((2, 1), 0.1), nj.activations.Activation(**fields)
    )
    return f"{c.holds}: {c.reason}"
