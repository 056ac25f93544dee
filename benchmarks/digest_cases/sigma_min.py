"""Spectra: σ_min by every route, of every kind of operator, as it is and traced; and all singular values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks.digest_cases.given import case, enter_all, folder, net, numbers
from benchmarks.digest_cases.products import OPERATORS, hilbert, low_rank, mlp, products, tanh_mlp

METHODS = ("auto", "gram", "qr", "dense")


def told(s: nj.SigmaMin) -> dict[str, Any]:
    """Return the fields of a result and what is read from them."""
    found = {"result": s, "status": s.status, "method": s.method, "certified": s.certified}
    return found | ({"message": s.message} if np.ndim(s.status_code) == 0 else {})


def every_route(make: Callable[[], Any]) -> Any:
    """Return σ_min of a concrete operator by every method, proven and as an estimate."""
    found = {method: told(nj.sigma_min(make(), method=method)) for method in METHODS}
    found["estimate"] = told(nj.sigma_min(make(), certify=False))
    return found | {"repr": repr(nj.sigma_min(make()))}


def whole_spectrum(make: Callable[[], Any]) -> Any:
    """Return all singular values, and the numbers that follow from them."""
    s = nj.singular_values(make())
    followed = [nj.condition_number(make()), nj.effective_rank(make())]
    return {"values": s, "error": s.error, "rank": s.rank, "numbers": followed, "repr": repr(s)}


IN_X64 = (
    "pairwise",
    "pairwise, more outputs",
    "pairwise, more rows than columns",
    "standard",
    "autodiff",
    "autodiff, recomputed",
    "explicit",
    "explicit, low rank",
)

for (
    _name,
    _make,
) in OPERATORS.items():  # one operator after the other: its three cases share compiled programs
    enter_all("jacobian/", {_name: partial(products, _make)}, IN_X64)
    enter_all("sigma_min/", {_name: partial(every_route, _make)}, IN_X64)
    enter_all("singular_values/", {_name: partial(whole_spectrum, _make)})


@case("sigma_min/float32", x64=True)
def single() -> Any:
    """The work in float32, for hardware without float64."""
    return {name: told(nj.sigma_min(OPERATORS[name](), dtype="float32")) for name in ("pairwise", "explicit")}


Sigma = Callable[..., nj.SigmaMin]


def pairwise(x: Any, params: Any, **options: Any) -> nj.SigmaMin:
    """Return σ_min of the pairwise net."""
    return nj.sigma_min(nj.jacobian.pairwise(params, x), **options)


def arrays() -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return samples and weights that can be traced."""
    return jnp.asarray(numbers(0, 5, 4)), jax.tree.map(jnp.asarray, net())


@case("sigma_min/compiled/pairwise", x64=True)
def compiled() -> Any:
    """Inside ``jit``, and of another operator of the same shape."""
    x, params = arrays()
    run = jax.jit(pairwise)
    return [told(run(x, params)), told(run(2 * x, params)), told(run(0 * x, params))]


@case("sigma_min/compiled/routes")
def compiled_routes() -> Any:
    """Inside ``jit`` by the other methods."""
    x, params = arrays()
    return {m: told(jax.jit(partial(pairwise, method=m))(x, params)) for m in ("gram", "qr")}


@case("sigma_min/compiled/standard, estimate")
def compiled_standard() -> Any:
    """The standard net inside ``jit``, nothing proven."""
    run = jax.jit(lambda p, x: nj.sigma_min(nj.jacobian.standard(p, x, "softplus"), certify=False))
    return told(run(net(outputs=2, pairs=False), numbers(0, 4, 4)))


@case("sigma_min/compiled/autodiff")
def compiled_autodiff() -> Any:
    """Any function inside ``jit``."""
    run = jax.jit(lambda p, x: nj.sigma_min(nj.jacobian.autodiff(tanh_mlp, p, x)))
    return told(run(mlp(), numbers(0, 5, 4)))


@case("sigma_min/compiled/explicit", x64=True)
def compiled_explicit() -> Any:
    """Matrices of each shape inside ``jit``: full rank, low rank, tall, ill-conditioned."""
    run = jax.jit(lambda a: nj.sigma_min(nj.jacobian.explicit(a)))
    given = {
        "full": numbers(0, 5, 9),
        "low rank": low_rank(),
        "tall": numbers(0, 8, 5),
        "ill-conditioned": hilbert(5)[:, :9]
        if hilbert(5).shape[1] >= 9
        else np.hstack([hilbert(5)] * 2)[:, :9],
    }
    return {name: told(run(matrix)) for name, matrix in given.items()}


@case("sigma_min/batch")
def batch() -> Any:
    """Inside ``vmap``, where "auto" is "gram": one of the batch cannot be resolved."""
    x, params = arrays()
    return told(jax.vmap(lambda x: pairwise(x, params))(jnp.stack([x, -x, x.at[3].set(x[1] * (1 + 1e-7))])))


@case("sigma_min/batch of tall matrices")
def tall_batch() -> Any:
    """Inside ``vmap``, where the shape decides."""
    return told(jax.vmap(lambda a: nj.sigma_min(nj.jacobian.explicit(a)))(jnp.asarray(numbers(0, 2, 8, 5))))


@case("sigma_min/gradient", x64=True)
def gradient() -> Any:
    """The gradient in samples and weights, of the value, the bounds and σ_max."""
    x, params = arrays()

    def all_of(x: Any, params: Any) -> jax.Array:
        s = pairwise(x, params)
        return jnp.stack([s.value, s.lower, s.upper, s.sigma_max])

    return jax.jacrev(all_of, (0, 1))(x, params)


@case("sigma_min/gradient, autodiff")
def gradient_autodiff() -> Any:
    """The gradient of σ_min of any function."""
    params = jax.tree.map(jnp.asarray, mlp())
    return jax.grad(lambda p: nj.sigma_min(nj.jacobian.autodiff(tanh_mlp, p, numbers(0, 5, 4))).value)(params)


@case("sigma_min/second derivative")
def second() -> Any:
    """The second derivative along a line."""
    a, b = jnp.asarray(numbers(0, 3, 4)), jnp.asarray(numbers(1, 3, 4))

    def at(t: Any) -> nj.SigmaMin:
        return nj.sigma_min(nj.jacobian.explicit(a + t * b))

    zero = jnp.zeros((), a.dtype)
    return jax.jacfwd(jax.grad(lambda t: at(t).value))(zero)


@case("singular_values/traced", x64=True)
def traced() -> Any:
    """All singular values inside ``jit``, ``vmap`` and ``grad``, and the numbers that follow."""
    x, params = arrays()

    def of(x: Any) -> Any:
        return nj.jacobian.pairwise(params, x)

    followed = (nj.condition_number, nj.effective_rank)
    return {
        "compiled": jax.jit(lambda x: nj.singular_values(of(x)))(x),
        "tall": jax.jit(lambda a: nj.singular_values(nj.jacobian.explicit(a)))(x @ x.T @ x),
        "slope": jax.grad(lambda x: jnp.sum(nj.singular_values(of(x)).values))(x),
        "numbers": [jax.value_and_grad(lambda x, number=number: number(of(x)))(x) for number in followed],
    }


@case("spectra/extremes")
def extremes() -> Any:
    """Bounds of small matrices of all shapes and sizes."""
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(4, 7)), rng.normal(size=(7, 4)), np.zeros((2, 3)), hilbert(11), low_rank()]
    given += [1e300 * given[0], 1e-310 * given[0], np.ones((1, 1)), given[0].astype(np.float32)]
    return [nj.spectra.extremes(matrix) for matrix in given]


@case("spectra/figure")
def figure() -> Any:
    """The figure that is drawn of a spectrum."""
    J = OPERATORS["pairwise"]()
    with folder() as place:
        nj.plots.spectrum(nj.singular_values(J), nj.sigma_min(J)).figure.savefig(place / "spectrum.png")
        return (place / "spectrum.png").read_bytes()


@case("spectra/monitor", x64=True)
def monitor() -> Any:
    """The monitor of σ_min, record by record, along a line of weights."""
    x, params = arrays()
    watch = nj.monitors.SigmaMinMonitor(nj.jacobian.pairwise)
    state, values = watch.init(params, x), []
    for step in range(4):
        state, value = jax.jit(watch.update)(
            state, jax.tree.map(lambda w, s=step: w * (1 + 0.3 * s), params), x
        )
        values.append(value)
    return values
