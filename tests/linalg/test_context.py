"""Where work runs: by where the arrays are, and by the platform that a program is lowered for."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax.linalg import context


@pytest.fixture
def operator():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 6)), "v": rng.normal(size=(3, 1))}
    return nj.jacobian.pairwise(params, rng.normal(size=(5, 4)))


def lowered(f, J, platform):
    return jax.jit(f).trace(J).lower(lowering_platforms=(platform,)).as_text()


def test_arrays_of_numpy_belong_to_the_host_whatever_the_machine_has(monkeypatch, operator):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    entered = []

    @contextlib.contextmanager
    def device(place):
        entered.append(place.platform)
        yield

    monkeypatch.setattr(jax, "default_device", device)
    assert context.on_cpu(operator)
    assert nj.sigma_min(operator).certified
    assert nj.singular_values(operator).rank == 5
    assert operator.mv(np.ones(24)).shape == (5,)
    assert set(entered) == {"cpu"}


@pytest.mark.parametrize(("platform", "host"), [("tpu", True), ("gpu", False), ("cpu", True)])
def test_arrays_of_a_device_stay_there_where_it_has_float64(monkeypatch, platform, host):
    x = jnp.ones(3)
    monkeypatch.setattr(context, "_platforms", lambda tree: {platform} if jax.tree.leaves(tree) else set())
    assert context.on_cpu(x) == host
    (fetched,) = context.at_host([x])
    assert (fetched is x) == (platform != "tpu")
    assert np.array_equal(fetched, x)


def test_a_machine_whose_cpu_jax_may_not_use(monkeypatch, operator):
    def none(backend=None):
        if backend:
            raise RuntimeError(f"Unknown backend {backend}")
        return []

    monkeypatch.setattr(jax, "local_devices", none)
    assert not context.on_cpu(operator)  # to the GPU, as everything
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with (
        pytest.raises(RuntimeError, match="JAX may use tpu only: add cpu to JAX_PLATFORMS"),
        context.float64(),
    ):
        pass


def test_numbers_of_numpy_keep_their_digits_beside_traced_ones(operator):
    """JAX keeps one form of a constant that two branches share: it would be float32."""
    wanted = nj.sigma_min(operator)
    with jax.enable_x64(True):
        s = jax.jit(lambda w: nj.sigma_min(nj.jacobian.pairwise({"w": w, "v": operator.v}, operator.x)))(
            operator.w
        )
        p = np.random.default_rng(1).normal(size=24)
        product = jax.jit(lambda J: J.mv(p))(operator)
        assert s.certified
        assert float(s.value) == pytest.approx(wanted.value, rel=1e-12)
        assert float(s.lower) <= wanted.upper
        assert wanted.lower <= float(s.upper)
        np.testing.assert_allclose(product, operator.mv(p), rtol=1e-12)


def test_the_platform_is_that_of_the_lowering():
    f = context.by_platform(lambda x: jnp.sin(x), lambda x: jnp.cos(x))
    for platform, name in (("cpu", "sine"), ("cuda", "sine"), ("tpu", "cosine")):
        text = lowered(f, 1.0, platform)
        assert [operation for operation in ("sine", "cosine") if f"stablehlo.{operation}" in text] == [name]


def test_branches_answer_in_one_dtype():
    with jax.enable_x64(True):
        f = context.by_platform(lambda x: x.astype("float64"), lambda x: x.astype("float32"))
        assert jax.eval_shape(f, np.ones(2)).dtype == jnp.float64


@pytest.mark.parametrize(
    ("said", "capability", "emulated"),
    [
        (None, None, False),
        (None, "9.0", False),
        (None, "10.0", True),
        (None, "gfx90a", False),
        ("0", "10.0", False),
        ("1", "9.0", True),
    ],
)
def test_emulation_has_to_be_known_to_be_off(monkeypatch, said, capability, emulated):
    if said is None:
        monkeypatch.delenv(context.EMULATION, raising=False)
    else:
        monkeypatch.setenv(context.EMULATION, said)
    card = types.SimpleNamespace(**({} if capability is None else {"compute_capability": capability}))
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    assert context.emulated() == emulated


def test_nothing_is_certified_in_emulated_products(monkeypatch, operator):
    monkeypatch.setenv(context.EMULATION, "1")
    monkeypatch.setattr(context, "on_cpu", lambda tree: False)  # as if on a GPU
    s = nj.sigma_min(operator)
    assert (s.status, s.lower, s.upper) == ("estimate", 0, np.inf)
    assert np.all(np.isinf(nj.singular_values(operator).error))
    assert np.isinf(operator.perturbation())
    assert np.isinf(operator.gram_error())
    monkeypatch.setenv(context.EMULATION, "0")
    assert nj.sigma_min(operator).certified
    assert np.isfinite(nj.singular_values(operator).error).all()
    assert np.isfinite(operator.perturbation())


@pytest.mark.parametrize("said", ["0", "1"])
def test_traced_programs_for_a_gpu_ask_too(monkeypatch, operator, said):
    monkeypatch.setenv(context.EMULATION, said)

    def proof(J):
        return nj.sigma_min(J).lower, nj.singular_values(J).error, J.gram_error()

    on_gpu = lowered(proof, operator, "cuda")
    assert ("certified_shift" in on_gpu) == (said == "0")  # the last step of the proof
    lower, error, _ = jax.jit(proof)(operator)  # on the CPU nothing is emulated
    assert lower > 0
    assert np.isfinite(error).all()


START = {"w": np.random.default_rng(0).normal(size=(4, 6)), "v": np.ones((3, 1))}
DATA = np.random.default_rng(1).normal(size=(5, 4)), np.random.default_rng(2).normal(size=(5, 1))
CERTIFICATES = {
    "memorization": lambda: nj.certificates.memorization(START, START, *DATA, radius=1.0),
    "kkt": lambda: nj.certificates.kkt(START, START, *DATA, radius=1.0),
    "gradient_bound": lambda: nj.certificates.gradient_bound(START, *DATA),
    "gradient_descent": lambda: nj.certificates.gradient_descent(START, *DATA),
    "condition_number": lambda: nj.condition_number(nj.jacobian.explicit(DATA[0].T)),
    "effective_rank": lambda: nj.effective_rank(nj.jacobian.explicit(DATA[0].T)),
    "lambda_star": lambda: nj.certificates.lambda_star(DATA[0], "softplus", "quadrature"),
}


@pytest.mark.parametrize("name", CERTIFICATES)
@pytest.mark.parametrize(("platform", "at_host"), [("tpu", True), ("gpu", False)])
def test_numbers_are_evaluated_where_float64_is_that_of_the_bounds(monkeypatch, name, platform, at_host):
    entered = []

    @contextlib.contextmanager
    def host():
        entered.append("host")
        yield

    monkeypatch.setattr(context, "on_cpu", lambda tree: True)  # σ_min itself: tested above
    monkeypatch.setattr(context, "as_numpy", _as_numpy)
    monkeypatch.setattr(context, "emulated", lambda: False)
    monkeypatch.setattr(context, "_host", host)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    CERTIFICATES[name]()
    assert bool(entered) == at_host


def _as_numpy(run):
    with jax.enable_x64(True), np.errstate(all="ignore"):
        return jax.tree.map(np.asarray, run())
