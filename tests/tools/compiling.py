"""Everything in ``benchmarks.aot`` for one platform, and what has to be found if something is wrong."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from benchmarks import aot
from benchmarks.compiled import missing


def skip(platform):
    """The mark of a file whose programs are compiled for this platform."""
    return pytest.mark.skipif(bool(missing(platform)), reason=missing(platform))


def every_program(platform):
    """The mark of a test of each program."""
    both = aot.programs(platform)
    return pytest.mark.parametrize(("target", "program"), both, ids=[f"{t.name}: {p.what}" for t, p in both])


def faults(target, program):
    """What is wrong with a program once it is compiled; optax and Flax promote by themselves."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return aot.wrong(target, program, aot.run(target, program))


def smuggled(found):
    """A program that computes in float64 on the way."""
    with jax.enable_x64(True):
        x = jax.ShapeDtypeStruct((8,), np.float32, sharding=SingleDeviceSharding(found[0]))
        return jax.jit(lambda x: (x.astype("float64") / 3).astype("float32")).lower(x)


def gathered(found):
    """A program that sends all of its samples to all devices."""
    mesh = jax.sharding.Mesh(np.array(found), ("batch",))
    x = jax.ShapeDtypeStruct((8,), np.float32, sharding=NamedSharding(mesh, PartitionSpec("batch")))
    return jax.jit(lambda x: x * 2, out_shardings=NamedSharding(mesh, PartitionSpec())).lower(x)
