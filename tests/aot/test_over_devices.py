"""A matrix over eight H100: memory as planned and recorded, less with more devices, and sums are all that is sent."""

import json

import jax
import pytest
from compiling import skip

from benchmarks import _timing, device_sizes
from benchmarks._lowering import spread
from benchmarks.compiled import H100_8, compiled, devices
from narrow_jax.linalg import on_devices

pytestmark = [skip("cuda"), pytest.mark.usefixtures("unchecked", "uncached")]
SIZES = (60_000, 1000, 48)


def found(part, count, dtype="float64"):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        target = H100_8._replace(topology=f"1x1x{count}")
        return compiled(spread(part, SIZES, dtype)(devices(target)), 0.0)


def test_a_hundred_thousand_rows_take_what_is_recorded_and_planned():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        one = device_sizes.record(*device_sizes.CASES[0])
    (recorded, *_) = json.loads((_timing.RESULTS / "device_sizes.json").read_text())["records"]
    assert one["bytes"] == recorded["bytes"]
    assert one["largest"] <= 25e9
    assert one["largest"] == pytest.approx(one["planned"], rel=0.25)
    assert one["collectives"] == ["all-reduce"]


def test_half_of_what_is_planned_does_not_do():
    (recorded, *_) = json.loads((_timing.RESULTS / "device_sizes.json").read_text())["records"]
    assert recorded["largest"] != pytest.approx(recorded["planned"] / 2, rel=0.25)


@pytest.mark.parametrize("part", ["factorised", "solution"])
def test_memory_falls_with_the_devices(part):
    alone, four = (found(part, count).bytes for count in (1, 4))
    assert alone / four == pytest.approx(4, rel=0.25)


def test_one_device_sends_nothing():
    assert found("factorised", 1).collectives == {}


def test_float32_takes_half():
    rows, entries = SIZES[0], SIZES[0] * sum(SIZES[1:])
    assert on_devices.plan(rows, entries, 8, "float32") * 2 == on_devices.plan(rows, entries, 8, "float64")
    assert found("factorised", 4, "float32").bytes == pytest.approx(found("factorised", 4).bytes / 2, rel=0.1)
