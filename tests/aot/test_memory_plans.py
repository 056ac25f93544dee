"""What ``memory_budget`` is compared with is what XLA counts, for one H100 and for the CPU."""

import os

import jax
import pytest
from compiling import skip

import narrow_jax as nj
from benchmarks import aot
from benchmarks._lowering import large, values
from benchmarks.compiled import H100_1
from narrow_jax.spectra import METHODS, plans

pytestmark = pytest.mark.usefixtures("unchecked", "uncached", "x64")

SIZES = [(200, 40, 30), (1000, 50, 80), (3000, 60, 60), (3000, 1000, 60), (4000, 3, 20)]
"""Samples, inputs, neurons: two, two, one and seven blocks of columns, and more rows than columns."""

LARGER = [(3000, 100, 80), (6000, 200, 100), (10_000, 300, 66), (20_000, 500, 100), aot.LARGE]

as_shipped = pytest.mark.skipif(
    "XLA_FLAGS" in os.environ, reason="under options that compile faster XLA takes other memory: make aot"
)
ALL = [pytest.param("gpu", sizes, marks=skip("cuda")) for sizes in SIZES]
ALL += [pytest.param("cpu", sizes, marks=as_shipped) for sizes in (SIZES[0], SIZES[1], SIZES[4])]


def temporary(place, lower):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if place == "gpu":
            return aot.run(H100_1, aot.Program("", lower)).temporary
        return lower(jax.devices("cpu")).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("place", "sizes"), ALL)
def test_of_sigma_min(place, sizes, method, certify):
    planned = plans.of_sigma_min(aot.of(sizes), place, certify)[method]
    assert temporary(place, large(sizes, method, certify)) == pytest.approx(planned, rel=0.25)


@pytest.mark.parametrize(("place", "sizes"), ALL)
def test_of_singular_values(place, sizes):
    assert temporary(place, values(sizes)) == pytest.approx(
        plans.of_singular_values(aot.of(sizes), place), rel=0.25
    )


@skip("cuda")
@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("sizes", LARGER)
def test_of_large_gram_matrices(sizes, certify):
    planned = plans.of_sigma_min(aot.of(sizes), "gpu", certify)["gram"]
    assert temporary("gpu", large(sizes, certify=certify)) == pytest.approx(planned, rel=0.25)


@skip("cuda")
def test_a_proof_of_fifty_thousand_rows_fits_forty_five_gigabytes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert aot.run(H100_1, aot.Program("", large(aot.LARGE))).bytes <= 45e9


@as_shipped
def test_a_matrix_in_memory_takes_no_more():
    """Its Gram matrix is kept, and its blocks are copies."""
    matrix = jax.ShapeDtypeStruct((1500, 3600), "float64")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        lowered = jax.jit(lambda a: nj.sigma_min(nj.jacobian.explicit(a), "qr").value).lower(matrix)
        found = lowered.compile().memory_analysis().temp_size_in_bytes
    planned = plans.of_sigma_min(plans.Sizes.of(jax.eval_shape(nj.jacobian.explicit, matrix)), "cpu", True)[
        "qr"
    ]
    assert found == pytest.approx(planned, rel=0.3)
