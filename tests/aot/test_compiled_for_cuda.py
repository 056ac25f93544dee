"""Every kind of program, compiled for one H100, and those of several devices for four and eight: ``make aot``."""

import pytest
from compiling import every_program, faults, gathered, skip

from benchmarks import aot
from benchmarks.compiled import H100_1, H100_8, UnavailableError, devices

pytestmark = [skip("cuda"), pytest.mark.usefixtures("unchecked", "uncached")]


@every_program("cuda")
def test_compiles(target, program):
    assert faults(target, program) == []


def test_a_gathered_batch_is_seen():
    (fault,) = faults(H100_8, aot.Program("gathered", gathered, devices=8))
    assert "all-gather" in fault


def test_half_of_what_is_planned_does_not_do():
    program = next(program for program in aot.SPECTRA if program.what == "sigma_min, gram, uncertified")
    (fault,) = faults(H100_1, program._replace(plan=program.plan // 2))
    assert f"planned are {program.plan // 2:,}" in fault


def test_unknown_topology():
    with pytest.raises(
        UnavailableError, match=r"'2x2' is no topology that the compiler for cuda knows.*1x1x8"
    ):
        devices(H100_1._replace(topology="2x2"))
