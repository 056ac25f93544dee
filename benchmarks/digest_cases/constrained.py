"""Optimizers under the constraints: the transformations themselves, and in whatever optax wraps them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks.digest_cases.given import case, data, enter_all, fit, start

c = nj.constraints
ADAM, SGD = optax.adam(1e-2), optax.sgd(0.05, momentum=0.9)
ONLY_W = {"w": True, "v": False}
REST = optax.masked(optax.set_to_zero(), {"w": False, "v": True})

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "regime": lambda: c.regime(ADAM, radius=0.1),
    "regime, κ": lambda: c.regime(SGD, radius=0.05, zeta=0.05, kappa=2.0),
    "regime, no ball": lambda: c.regime(ADAM, radius=jnp.inf),
    "regime, frozen": lambda: c.regime(ADAM, radius=0.0),
    "regime, no cone": lambda: c.regime(ADAM, radius=0.01, zeta=None),
    "regime, schedules": lambda: c.regime(
        optax.adamw(optax.cosine_decay_schedule(0.05, 12)), radius=optax.linear_schedule(0.01, 0.5, 10)
    ),
    "regime, labels": lambda: c.regime(ADAM, radius=0.1, labels=c.by_path(w="w", v="v")),
    "project": lambda: optax.chain(ADAM, c.project(radius=0.05, zeta=0.01, kappa=4.0)),
    "project, ball": lambda: optax.chain(SGD, c.project(radius=0.02)),
    "project, cone": lambda: optax.chain(SGD, c.project(zeta=0.2, kappa=2.0)),
    "ball_coordinates": lambda: c.ball_coordinates(ADAM, 0.1),
    "masked": lambda: optax.chain(optax.masked(c.regime(ADAM, 0.05, zeta=None), ONLY_W), REST),
    "masked inside": lambda: c.regime(optax.masked(ADAM, ONLY_W), 0.05),
    "partition": lambda: optax.partition(
        {"a": c.regime(ADAM, 0.05, zeta=None), "b": optax.sgd(0.1)}, {"w": "a", "v": "b"}
    ),
    "MultiSteps": lambda: optax.MultiSteps(c.regime(ADAM, 0.05), 3),
    "inject_hyperparams": lambda: optax.chain(
        ADAM,
        optax.inject_hyperparams(c.project)(radius=optax.linear_schedule(0.1, 0.01, 9), zeta=0.01, kappa=4.0),
    ),
    "apply_if_finite": lambda: optax.apply_if_finite(c.regime(ADAM, 0.05), 3),
    "schedule_free": lambda: c.regime(optax.contrib.schedule_free_sgd(0.05), 0.05),
    "sam": lambda: c.regime(optax.contrib.sam(optax.sgd(0.01), optax.sgd(0.05), opaque_mode=True), 0.05),
    "lbfgs": lambda: c.regime(optax.lbfgs(), 0.05),
    "polyak": lambda: c.regime(optax.polyak_sgd(), 0.05),
    "adafactor": lambda: c.regime(optax.adafactor(0.05, multiply_by_parameter_scale=False), 0.05),
}
IN_X64 = ("regime", "regime, κ", "project", "ball_coordinates", "partition", "MultiSteps", "schedule_free")


def trained(name: str) -> Any:
    """Train with one of the optimizers, and read the constraints from its state."""
    found = fit(OPTIMIZERS[name](), params=start(zeta=0.2, kappa=2.0))
    result = found["result"]
    found["report"] = c.report(result.opt_state, result.params)
    if name == "schedule_free":
        found["average"] = c.eval_params(result.opt_state, result.params)
    return found


enter_all("fit/optimizer/", {name: partial(trained, name) for name in OPTIMIZERS}, IN_X64)


def by_hand(tx: Any, compiled: bool) -> Any:
    """Take three steps without ``fit``, and return states, updates and params of each."""
    params, (x, y) = start(outputs=2, zeta=0.05, kappa=3.0), data(outputs=2)
    update = jax.jit(tx.update) if compiled else tx.update
    state, taken = tx.init(params), []
    for _ in range(3):
        gradient = jax.grad(lambda p: nj.losses.squared(nj.models.pairwise_apply(p, x), y))(params)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        taken.append({"updates": updates, "params": params, "state": state, "report": c.report(state)})
    return taken


@case("constraints/by hand", x64=True)
def uncompiled() -> Any:
    """The regime, step by step, not compiled."""
    return by_hand(c.regime(ADAM, radius=0.02, zeta=0.05, kappa=3.0), compiled=False)


@case("constraints/by hand, compiled", x64=True)
def compiled() -> Any:
    """The projection after momentum, each update compiled."""
    return by_hand(optax.chain(SGD, c.project(radius=0.02, zeta=0.05, kappa=3.0)), compiled=True)


@case("constraints/labels")
def labels() -> Any:
    """Labels by the names of leaves and by their paths."""
    params = {
        "block": {"conv": {"kernel": 0.0, "w": 1.0}, "bias": 2.0},
        "head": {"v": 3.0, "w": 4.0},
        "list": [{"v": 5.0}, 6.0],
    }
    masked = optax.masked(optax.identity(), {"block": False, "head": True, "list": False})
    return {
        "name": c.by_name(params),
        "folder": c.by_path(w="block", v="head/v")(params),
        "leaf": c.by_path(w=("conv/kernel", "block/bias"), v=["head/v", "list/0/v"])(params),
        "none": c.by_path()(params),
        "masked": masked.init(params),
    }


@case("projections/balls and cones", x64=True)
def projections() -> Any:
    """The projections, inside, outside, on the edges, and their slopes."""
    p, rng = nj.projections, np.random.default_rng(0)
    tree = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=5))}
    center = jax.tree.map(lambda leaf: leaf + 0.1, tree)
    v = jnp.asarray(rng.normal(size=(7, 2)))
    return {
        "ball": {str(radius): p.l2_ball(tree, center, radius) for radius in (0.0, 0.05, 10.0, jnp.inf)},
        "norm": [
            p.l2_norm(tree),
            p.l2_norm({}),
            p.l2_norm({"big": jnp.full(3, 3e30), "small": jnp.full(2, 1e-30)}),
        ],
        "half": p.l2_ball(v.astype(jnp.bfloat16), jnp.zeros((7, 2), jnp.bfloat16), 1.0),
        "shrinkage": [p.ball_shrinkage(jnp.asarray(2.0), radius) for radius in (0.0, 1.0, 2.0, 3.0, jnp.inf)],
        "cone": {str(kappa): p.ratio_cone(v, 0.1, kappa) for kappa in (1.0, 2.5, 1e6, jnp.inf)},
        "column": p.ratio_cone(v[:, 0], 0.5, 4.0, p.sign_pattern(v[:, 0])),
        "signs": p.ratio_cone(v, 0.05, 3.0, p.sign_pattern(v)),
        "slope": jax.grad(lambda t: p.l2_norm(p.l2_ball(t, center, 0.05)))(tree),
        "slope of the cone": jax.jit(jax.grad(lambda v: jnp.sum(p.ratio_cone(v, 0.1, 2.0) ** 2)))(v),
        "batch": jax.vmap(lambda radius: p.l2_ball(tree, center, radius))(jnp.array([0.0, 0.1, 1.0])),
        "working": [p.working(v), p.working(v.astype(jnp.float16))],
    }
