"""Table 1 and the scaling of LeCun's width."""

import math

import jax
import numpy as np
import pytest
from pyramids import SIGMA, sphere

import narrow_jax as nj
from narrow_jax.certificates import lecun_width, width_requirements


def test_table_1_row_by_row():
    rows = {row.work.split()[0]: row for row in width_requirements(100, 10)[:4]}
    known = {name: row.log10_known for name, row in rows.items()}
    assert known == pytest.approx({"[31]": 4, "[2]": 60, "[49]": 28, "[16]": 8})
    assert [row.work for row in rows.values() if not row.deep] == ["[31] Oymak, Soltanolkotabi"]
    general, lecun = width_requirements(100, 10)[4:]
    assert (general.log10_known, general.unknown, general.wide_layers) == (2, "", "one")
    assert (lecun.log10_known, lecun.unknown) == (4, "2^O(L) λ_*^-2")


@pytest.mark.parametrize(("samples", "layers", "message"), [(0, 3, "samples is 0"), (5, 1, "layers is 1")])
def test_bad_sizes_are_refused(samples, layers, message):
    with pytest.raises(ValueError, match=message):
        width_requirements(samples, layers)


def test_terms_are_those_of_equation_12():
    x = sphere(np.random.default_rng(0), 6, 4)
    found = lecun_width(x, np.ones((6, 1)), (1,), SIGMA)
    smallest = nj.certificates.lambda_star(x, SIGMA).value
    assert found.sample_term == pytest.approx(36 / smallest**2)
    assert found.spectral_term == pytest.approx(
        np.linalg.norm(x, 2) ** 2 / smallest * math.log(6 / smallest) ** 2
    )


def test_estimated_width_is_where_a_draw_is_certified():
    """For two layers the estimate can be reached: certified at four times that width, not at a quarter."""
    x, y = sphere(np.random.default_rng(0), 2, 20), np.full((2, 1), 1e-2)
    width = 10 ** lecun_width(x, y, (1,), SIGMA).log10_width
    assert width < 1e6
    for factor, holds in ((4, True), (0.25, False)):
        params = nj.initializers.pyramidal(
            jax.random.key(0), inputs=20, widths=(int(factor * width), 1), variant="lecun"
        )
        c = nj.certificates.pyramidal(params, x.astype(np.float32), y.astype(np.float32), SIGMA)
        assert (min(c.condition4, c.condition5) > 0) == holds


def test_equal_rows_have_no_width():
    x = np.sqrt(2) * np.ones((3, 2)) / np.sqrt(2)
    assert lecun_width(x, np.ones((3, 1)), (1,), SIGMA).log10_width > 20


BAD = {
    "sphere": (np.eye(2), np.ones((2, 1)), (1,), "needs rows of norm √d"),
    "outputs": (
        np.sqrt(2) * np.eye(2),
        np.ones((2, 1)),
        (3, 2),
        r"above is \(3, 2\) and y has shape \(2, 1\)",
    ),
    "none": (np.sqrt(2) * np.eye(2), np.ones((2, 1)), (), r"above is \(\)"),
    "samples": (np.sqrt(2) * np.eye(2), np.ones((3, 1)), (1,), "x has 2 samples and y has shape"),
}


@pytest.mark.parametrize(("x", "y", "above", "message"), BAD.values(), ids=BAD.keys())
def test_bad_data_are_refused(x, y, above, message):
    with pytest.raises(ValueError, match=message):
        lecun_width(x, y, above, SIGMA)
