"""What ``autodiff`` says it takes is what the compiler counts, and fits the budget; the pieces change no number."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from narrow_jax._checks import MemoryBudgetError
from narrow_jax.jacobian import autodiff, automatic, pieces

RNG = np.random.default_rng(0)


def mlp(params, x):
    *hidden, last = params
    for w in hidden:
        x = jnp.tanh(x @ w)
    return x @ last


def convolved(params, x):
    first, second, last = params
    for kernel in (first, second):
        x = jnp.tanh(
            jax.lax.conv_general_dilated(
                x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return x.mean((1, 2)) @ last


def layers(*sizes):
    return [RNG.normal(size=pair) / np.sqrt(pair[0]) for pair in itertools.pairwise(sizes)]


CASES = {
    "small": (mlp, layers(5, 6, 2), RNG.normal(size=(12, 5))),
    "three outputs": (mlp, layers(10, 20, 20, 3), RNG.normal(size=(50, 10))),
    "wide": (mlp, layers(60, 80, 1), RNG.normal(size=(20, 60))),
    "deep": (mlp, layers(*[16] * 6, 1), RNG.normal(size=(60, 16))),
    "convolutions": (
        convolved,
        [RNG.normal(size=s) * 0.3 for s in ((3, 3, 3, 4), (3, 3, 4, 4), (4, 2))],
        RNG.normal(size=(10, 16, 16, 3)),
    ),
}


def counted(J):
    """What the compiler says of evaluating J."""
    with jax.enable_x64(True):
        data = automatic._cast(automatic._Data(J.params, J.x), "float64")
        told = automatic._evaluate.lower(data, J.plan, "float64").compile().memory_analysis()
    return told.temp_size_in_bytes + told.output_size_in_bytes


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("name", CASES)
def test_plans_are_what_the_compiler_counts(name, mode):
    f, params, x = CASES[name]
    whole = autodiff(f, params, x, mode=mode)
    matrix = 8 * whole.shape[0] * whole.shape[1]
    for budget in (3 * matrix + 8 * x.size, 2 * matrix + 16 * x.size):
        J = autodiff(f, params, x, mode=mode, memory_budget=int(budget))
        found = counted(J)
        kept = 0 if J.plan.stored else 8 * pieces.BLOCKS * J.shape[0] * J.plan.width
        assert found + kept <= J.plan.bytes <= budget
        assert J.plan.measured or name == "small"  # whose bound fits in some versions
        assert not J.plan.measured or found + kept == pytest.approx(J.plan.bytes, rel=0.25)
        np.testing.assert_allclose(J.dense(), whole.dense(), rtol=1e-5, atol=1e-6)


def test_what_is_sure_to_fit_is_not_compiled():
    f, params, x = CASES["deep"]
    J = autodiff(f, params, x)
    assert not J.plan.measured
    assert J.plan.bytes >= counted(J)


def test_a_plan_halved_is_seen():
    """A negative control: without what a pass keeps the plan is far below what the compiler counts."""
    f, params, x = CASES["three outputs"]
    J = autodiff(f, params, x, mode="forward", memory_budget=1_000_000)
    assert counted(J) != pytest.approx(J.plan.bytes / 2, rel=0.25)


@pytest.mark.parametrize(
    ("mode", "instead"), [("reverse", "try mode='forward'"), ("forward", "pass fewer samples")]
)
def test_too_little_says_how_much_and_what_would_fit(mode, instead):
    f, params, x = CASES["wide"]
    with pytest.raises(MemoryBudgetError, match=f"raise it, or {instead}") as error:
        autodiff(f, params, x, mode=mode, memory_budget=8_000)
    needed = int(re.search(r"at least ([\d,]+) bytes", str(error.value)).group(1).replace(",", ""))
    J = autodiff(f, params, x, mode=mode, memory_budget=2 * needed)
    assert J.plan.bytes <= 2 * needed
