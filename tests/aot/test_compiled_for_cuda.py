"""Every kind of program, compiled for one H100, and those of several devices for four and eight: ``make aot``."""

import jax
import pytest
from compiling import every_program, faults, gathered, skip

from benchmarks import aot
from benchmarks._lowering import large
from benchmarks.compiled import H100_1, H100_8, UnavailableError, devices
from narrow_jax.spectra import smallest_value

pytestmark = [skip("cuda"), pytest.mark.usefixtures("unchecked", "uncached")]


@every_program("cuda")
def test_compiles(target, program):
    assert faults(target, program) == []


def test_a_gathered_batch_is_seen():
    (fault,) = faults(H100_8, aot.Program("gathered", gathered, devices=8))
    assert "all-gather" in fault


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize(
    "sizes", [(3000, 100, 80), (6000, 200, 100), (10_000, 300, 66), (20_000, 500, 100), aot.LARGE]
)
def test_plans_of_large_gram_matrices_are_what_the_compiler_counts(sizes, certify):
    n, d, m = sizes
    program = aot.Program("gram", large(sizes, certify))
    planned = smallest_value.plan(n, d * m, host=False, certify=certify)["gram"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = aot.run(H100_1, program).temporary
    assert found == pytest.approx(planned, rel=0.25)


def test_half_of_what_is_planned_does_not_do():
    program = next(program for program in aot.SPECTRA if program.what == "sigma_min, gram, uncertified")
    (fault,) = faults(H100_1, program._replace(plan=program.plan // 2))
    assert f"planned are {program.plan // 2:,}" in fault


def test_unknown_topology():
    with pytest.raises(
        UnavailableError, match=r"'2x2' is no topology that the compiler for cuda knows.*1x1x8"
    ):
        devices(H100_1._replace(topology="2x2"))
