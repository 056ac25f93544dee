"""Every kind of program, compiled for TPU v5e without one: ``make aot``."""

import pytest
from compiling import every_program, faults, gathered, skip, smuggled

from benchmarks import aot
from benchmarks.compiled import V5E, UnavailableError, devices

pytestmark = [skip("tpu"), pytest.mark.usefixtures("unchecked", "uncached")]


@every_program("tpu")
def test_compiles(target, program):
    assert faults(target, program) == []


def test_float64_is_seen():
    assert faults(V5E, aot.Program("smuggled", smuggled)) == ["float64 is lowered for a TPU"]


def test_a_gathered_batch_is_seen():  # which XLA for TPUs makes a sum
    (fault,) = faults(V5E, aot.Program("gathered", gathered, devices=4))
    assert fault.endswith("expected sums only, at most 0")


def test_a_factorisation_that_nobody_expects_is_seen():
    monitor = next(program for program in aot.SPECTRA if program.what == "SigmaMinMonitor")
    (fault,) = faults(V5E, monitor._replace(calls={"tpu": {"EighTpu"}}))
    assert "['Cholesky', 'EighTpu']; expected ['EighTpu']" in fault


def test_a_device_that_is_too_small_is_seen():
    monitor = next(program for program in aot.SPECTRA if program.what == "SigmaMinMonitor")
    (fault,) = faults(V5E._replace(memory=1000), monitor)
    assert fault.endswith("the device has 1,000")


@pytest.mark.parametrize("topology", ["v5e:9x9", "v9z:2x2", "nonsense"])
def test_unknown_topology(topology):
    with pytest.raises(
        UnavailableError, match=f"'{topology}' is no topology that the compiler for tpu knows.*v5e:2x2"
    ):
        devices(V5E._replace(topology=topology))
