"""Crashes on what users have, messages that mislead, friction."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.core import FrozenDict

import narrow_jax as nj
from benchmarks._fault_cases import NET, RNG, P, X, Y, case, equals, number, python, says, shell

BATCH = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")


@case("C1 jit of vmap", "three values", equals("3"))
def _() -> Any:
    return jax.jit(jax.vmap(lambda a: nj.sigma_min(nj.jacobian.explicit(a)).value))(BATCH).size


@case("C1 lax.map in batches", "three values", equals("3"))
def _() -> Any:
    return jax.lax.map(lambda a: nj.condition_number(nj.jacobian.explicit(a)), BATCH, batch_size=2).size


@case("C1 sweep with SigmaMinMonitor", "two runs", equals("(2, 3)"))
def _() -> Any:
    def setup(seed: Any) -> Any:
        params = nj.initializers.mirrored_lecun(jax.random.key(seed), inputs=5, width=8)
        return params, nj.constraints.regime(optax.adam(0.1), 0.1)

    watch = nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)
    result = nj.sweep(NET, setup, (X[:6], Y[:6]), grid={"seed": [0, 1]}, steps=2, monitors=[watch])
    return result.history["sigma_min"].shape


@case("C1 autodiff forward under jit", "a number", number(0, 1e3))
def _() -> Any:
    def value(p: Any) -> Any:
        return nj.sigma_min(nj.jacobian.autodiff(NET, p, X[:4], wrt="w", mode="forward")).value

    return float(jax.jit(value)(P))


@case("C2 masked regime in fit", "runs", equals("2"))
def _() -> Any:
    tx = optax.masked(nj.constraints.regime(optax.adam(0.1), 0.1, zeta=None), {"w": True, "v": False})
    return nj.fit(NET, P, tx, (X, Y), steps=2).steps_taken


@case("C2 partition in fit", "runs", equals("2"))
def _() -> Any:
    parts = {"narrow": nj.constraints.regime(optax.adam(0.1), 0.1, zeta=None), "rest": optax.sgd(0.1)}
    return nj.fit(NET, P, optax.partition(parts, {"w": "narrow", "v": "rest"}), (X, Y), steps=2).steps_taken


@case("C3 sam", "runs, or is refused by name", lambda o: o == "2" or says("optax.contrib.sam")(o))
def _() -> Any:
    tx = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), opaque_mode=True)
    return nj.fit(NET, P, tx, (X, Y), steps=2).steps_taken


@case("C3 lookahead", "runs, or is refused by name", lambda o: o == "2" or says("ookahead")(o))
def _() -> Any:
    return nj.fit(NET, P, optax.lookahead(optax.sgd(0.1), 2, 0.5), (X, Y), steps=2).steps_taken


@case("C4 FrozenDict as model_state", "runs", equals("2"))
def _() -> Any:
    net = nj.models.ResNet(channels=(2,), blocks=(1,), outputs=2)
    images, labels = np.linspace(0, 1, 96, dtype=np.float32).reshape(6, 4, 4, 1), np.array([0, 1, 0, 1, 1, 0])
    state = net.init(jax.random.key(0), images)
    params = state.pop("params")
    result = nj.fit(
        nj.models.Stateful(net), params, optax.sgd(0.1), (images, labels), steps=2, loss="cross_entropy",
        model_state=FrozenDict(state),
    )  # fmt: skip
    return result.steps_taken


def saved(folder: str) -> list[nj.callbacks.Callback]:
    """Return the callbacks of a run that keeps checkpoints."""
    return [nj.callbacks.Checkpoint(folder)]


@case("C5 NumPy steps with a checkpoint", "runs", equals("30"))
def _() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return nj.fit(
            NET, P, optax.adam(0.1), (X, Y), steps=np.int64(30), callbacks=saved(folder)
        ).steps_taken


@case("C6 sharded x", "runs, or says what to do", lambda o: o.endswith(("2", "devices=")))
def _() -> Any:
    code = (
        "import jax, numpy as np, optax, narrow_jax as nj\n"
        "from jax.sharding import PartitionSpec as P\n"
        "mesh = jax.make_mesh((2,), ('b',))\n"
        "x = jax.device_put(np.ones((4, 5), 'float32'), jax.NamedSharding(mesh, P('b')))\n"
        "p = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)\n"
        "data = x, np.ones((4, 1), 'float32')\n"
        "print(nj.fit(nj.models.pairwise_apply, p, optax.adam(.1), data, steps=2).steps_taken)"
    )
    return python(code, XLA_FLAGS="--xla_force_host_platform_device_count=2")


@case("C7 gradient through custom_vjp", "a number", number(0, 1e3))
def _() -> Any:
    @jax.custom_vjp
    def square(z: Any) -> Any:
        return z * z

    square.defvjp(lambda z: (z * z, z), lambda z, g: (2 * z * g,))

    def value(w: Any) -> Any:
        J = nj.jacobian.autodiff(lambda p, x: square(x @ p["w"]), {"w": w}, X[:4])
        return nj.sigma_min(J).value

    return float(jnp.abs(jax.grad(value)(jnp.ones((5, 2)) + P["w"][:, :2])).max())


@case("C8 JAX_DEBUG_INFS", "draws", equals("(5, 8)"))
def _() -> Any:
    code = (
        "import jax, narrow_jax as nj; "
        "print(nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)['w'].shape)"
    )
    return python(code, JAX_DEBUG_INFS="1")


@case("C9 weights of a checkpoint", "the params alone", equals("['v', 'w']"))
def _() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        nj.fit(NET, P, optax.adam(0.1), (X, Y), steps=4, callbacks=saved(folder))
        return sorted(nj.checkpoints.load_params(folder).params)


# messages that mislead


def fitted(**changes: Any) -> Any:
    """Train two steps with something changed, and return the steps taken."""
    given = {"params": P, "tx": optax.adam(0.1), "data": (X, Y), "steps": 2} | changes
    return nj.fit(NET, given.pop("params"), given.pop("tx"), given.pop("data"), **given).steps_taken


@case("M x as a list", "runs, or says that it is a list", lambda o: o == "2" or says("list")(o))
def _() -> Any:
    return fitted(data=(X.tolist(), Y))


@case("M a Python float among the params", "runs, or names it", lambda o: o == "2" or says("float")(o))
def _() -> Any:
    return fitted(params=P | {"bias": 0.5})


@case("M x of strings", "says strings", says("x is an array of dtype"))
def _() -> Any:
    return fitted(data=(np.array([["a"] * 5] * 64), Y))


@case("M two inputs", "says what a dict is not", says("dict"))
def _() -> Any:
    return fitted(data=({"a": X, "b": X}, Y))


@case("M labels and weights", "says tuple", says("tuple"))
def _() -> Any:
    return fitted(data=(X, (Y, np.ones(64))))


@case("M key=42", "says jax.random.key(42)", says("jax.random.key"))
def _() -> Any:
    return fitted(key=42, batch_size=8)


@case("M tx uncalled", "says that it is to be called", says("call it"))
def _() -> Any:
    return fitted(tx=optax.adam)


@case("M a loss without its mean", "says scalar", says("mean"))
def _() -> Any:
    return fitted(loss=lambda outputs, y: (outputs - y) ** 2)


@case("M float64 data", "runs", equals("2"))
def _() -> Any:
    return fitted(data=(X.astype(float), Y.astype(float)))


@case("M data.load(array)", "says that it takes a name", says("name"))
def _() -> Any:
    return nj.data.load(X)  # type: ignore[arg-type]


@case("M tokens", "a Jacobian", equals("(4, 12)"))
def _() -> Any:
    table = {"table": jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)}
    return nj.jacobian.autodiff(lambda p, x: p["table"][x, 0], table, np.array([0, 1, 2, 3])).shape


@case("M an NNX module", "says nnx.split", says("nnx.split"))
def _() -> Any:
    module = nnx.Linear(5, 1, rngs=nnx.Rngs(0))
    return nj.jacobian.autodiff(module, P, X[:4]).shape


@case("M swish", "a stock activation", equals("swish"))
def _() -> Any:
    return nj.activations.get("swish").name


# friction


@case("F FitResult is short", "one line", lambda o: o.startswith("FitResult(") and len(o) < 200)
def _() -> Any:
    return repr(nj.fit(NET, P, optax.adam(0.1), (X, Y), steps=2)).replace("\n", " ")


@case("F dir()", "no modules of others", equals("[]"))
def _() -> Any:
    modules = nj.monitors, nj.plots, nj.checkpoints, nj.activations
    return sorted({"json", "os", "np", "jax", "jnp"} & {name for module in modules for name in dir(module)})


@case("F wrong --dataset", "no folder is left", equals("[]"))
def _() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        shell("train", "--dataset", "digit", folder=folder)
        return sorted(path.name for path in Path(folder).iterdir())


@case("F learning rate 1e9", "exit status 1", equals("1"))
def _() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return shell(
            "train", "--samples", "60", "--steps", "50", "--learning-rate", "1e9", folder=folder
        ).returncode


@case("F rank with a duplicate row", "59", equals("59"))
def _() -> Any:
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (60, 80))
    a = left @ np.diag(np.geomspace(1, 1e-10, 60)) @ right[:60]
    a[7] = a[3]
    return int(nj.singular_values(nj.jacobian.explicit(a)).rank)


@case("F effective rank of zeros", "0.0", equals("0.0"))
def _() -> Any:
    return float(nj.effective_rank(nj.jacobian.explicit(np.zeros((3, 4)))))
