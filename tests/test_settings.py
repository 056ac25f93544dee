"""Settings of JAX that hold for a whole process: debugging infinities and NaNs, arrays on several devices."""

import os
import subprocess
import sys

import pytest

COMMON = """
import jax, numpy as np, optax
import narrow_jax as nj
r = np.random.default_rng(0)
x = r.normal(size=(16, 5)).astype("float32"); y = np.sign(x[:, :1])
p = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)
net, adam = nj.models.pairwise_apply, optax.adam(0.01)
"""

DEBUGGED = """
nj.fit(net, p, nj.constraints.regime(adam, np.inf), (x, y), steps=3)  # first: nothing is compiled yet
nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8, outputs=2, kappa=4.0)
nj.initializers.lecun(jax.random.key(0), inputs=5, width=8)
nj.initializers.pyramidal(jax.random.key(0), inputs=5, widths=(8, 3, 1))
nj.models.PairwiseHead().init(jax.random.key(0), x[:, :4])
for radius in (0.0, 0.1, float("inf"), np.float32("inf")):
    nj.projections.l2_ball(p, p, radius)
    nj.fit(net, p, nj.constraints.regime(adam, radius), (x, y), steps=3)
nj.fit(net, p, nj.constraints.regime(adam, np.inf, zeta=None), (x, y), steps=3)
nj.projections.ratio_cone(p["v"], 1e-3, np.inf)
setup = lambda radius: (p, nj.constraints.regime(adam, radius))
nj.sweep(net, setup, (x, y), grid={"radius": [0.1, np.inf]}, steps=3)
"""

SHARDED = """
from jax.sharding import AxisType, NamedSharding, PartitionSpec
tx = nj.constraints.regime(adam, 1.0)
expected = nj.fit(net, p, tx, (x, y), steps=5)
for axis in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(axis,))
    xs, ys = jax.device_put((x, y), NamedSharding(mesh, PartitionSpec("d")))
    whole = jax.device_put(p, NamedSharding(mesh, PartitionSpec()))
    runs = [
        nj.fit(net, p, tx, (xs, ys), steps=5),
        nj.fit(net, whole, tx, (xs, y), steps=5, evaluation=(xs, ys)),
        nj.fit(net, whole, tx, (x, y), steps=5),
        nj.fit(net, p, tx, (xs, ys), steps=5, devices=jax.devices()[:2]),
    ]
    assert [len(run.params["w"].devices()) for run in runs] == [4, 4, 1, 2]
    for run in runs:
        np.testing.assert_allclose(run.params["w"], expected.params["w"], rtol=1e-5, atol=1e-6)
    nj.fit(net, runs[0].params, tx, (x, y), steps=5, opt_state=runs[0].opt_state)
    swept = nj.sweep(net, lambda rate: (p, optax.sgd(rate)), (xs, ys), grid={"rate": [0.1]}, steps=2)
    stream = nj.data.Stream(xs, ys)
    batches = {"batch_size": 6, "key": jax.random.key(0), "steps": 2}
    nj.fit(net, p, tx, stream, **batches)
    try:
        nj.fit(net, p, tx, (xs, ys), **batches)
    except ValueError as error:
        assert "a batch of 6 samples does not divide over 4 devices" in str(error), error
    else:
        raise AssertionError("a batch that does not divide was taken")
"""

CASES = {
    "infinities and NaNs": (DEBUGGED, {"JAX_DEBUG_INFS": "1", "JAX_DEBUG_NANS": "1"}),
    "devices": (SHARDED, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}),
}


@pytest.mark.parametrize("name", CASES)
def test_default_paths_run_under(name):
    code, setting = CASES[name]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {setting.get('XLA_FLAGS', '')}".strip()
    environment = os.environ | setting | {"XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
