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


def neurons(rows):
    return {(row.work, row.says, row.net): row.neurons for row in rows}


def test_rows_of_one_hidden_layer_are_the_formulas():
    rows = width_requirements(1000, 2, inputs=50)
    assert neurons(rows) == {
        ("counting (Sard)", "impossible below", "standard"): 20,  # 1000/51
        ("counting (Sard)", "impossible below", "pairwise"): 20,  # 2·⌈1000/101⌉
        ("Theorem 1", "possible from", "pairwise"): 40,
        ("Bubeck et al. 2020", "possible from", "standard"): 80,
        ("Daniely", "scaling", "standard"): None,
    }
    power = math.log(1000) / math.log(50)
    assert rows[-1].log10_known == pytest.approx(
        math.log10(1000 / 50 * math.log(50 * math.log(1000)) ** power)
    )
    assert all(
        row.log10_known == pytest.approx(math.log10(row.neurons)) for row in rows if row.neurons is not None
    )


def test_several_outputs_are_admitted_by_counts_alone():
    rows = {row.work: row for row in width_requirements(1797, 2, inputs=61, outputs=10)}
    assert (rows["Theorem 1"].says, rows["Theorem 1"].neurons) == (
        "admitted by counts",
        2 * math.ceil(17970 / 61),
    )
    assert rows["Bubeck et al. 2020"].neurons == 4 * 30 * 10


@pytest.mark.parametrize(("n", "d", "k", "layers"), [(1000, 3, 1, 3), (300, 10, 2, 4), (50, 4, 3, 6)])
def test_deep_rows_against_a_search(n, d, k, layers):
    depth = layers - 1
    impossible, admitted = width_requirements(n, layers, inputs=d, outputs=k)[-2:]

    def parameters(width):
        params = nj.initializers.mirrored_mlp(jax.random.key(0), inputs=d, widths=(width,) * depth, outputs=k)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    fewest = next(width for width in range(1, n) if parameters(width) >= n * k)
    assert (impossible.says, impossible.widths) == ("impossible below", (2 * fewest,) * depth)
    x = np.random.default_rng(0).normal(size=(n, d))
    smallest = nj.jacobian.admissible_widths(x, depth, k)
    assert (admitted.says, admitted.widths) == ("admitted by counts", tuple(2 * width for width in smallest))
    assert impossible.neurons <= admitted.neurons == sum(admitted.widths)


@pytest.mark.parametrize(("n", "d", "k"), [(20, 3, 1), (1797, 61, 10), (7, 40, 2)])
def test_one_unit_less_has_fewer_parameters_than_equations(n, d, k):
    standard, pairwise = (row.neurons for row in width_requirements(n, 2, d, k)[:2])
    sizes = {"inputs": d, "outputs": k}
    for draw, width, unit in (
        (nj.initializers.lecun, standard, 1),
        (nj.initializers.mirrored_lecun, pairwise, 2),
    ):
        params = jax.eval_shape(
            lambda key, draw=draw, m=width: draw(key, width=m, **sizes), jax.random.key(0)
        )
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert count * (width - unit) // width < n * k <= count


def test_the_rank_of_the_data_counts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 8))
    given = width_requirements(60, 3, x=x)
    assert given == width_requirements(60, 3, 3)
    assert given == width_requirements(60, 3, 8, x=x)
    assert nj.jacobian.admissible_width(x) == next(row for row in given if row.work == "Theorem 1").neurons


@pytest.mark.parametrize(("samples", "inputs"), [(1, 5), (100, 1), (2, 1)])
def test_daniely_has_no_value_for_one_sample_or_one_input(samples, inputs):
    row = width_requirements(samples, 2, inputs)[-1]
    assert (row.work, row.log10_known) == ("Daniely", math.inf)


NARROW_BAD = {
    "inputs": ((10, 2, 0), {}, "inputs is 0"),
    "outputs": ((10, 2, 3, 0), {}, "outputs is 0"),
    "outputs alone": ((10, 2), {"outputs": 2}, "outputs is 2 without inputs; expected inputs, d, or x"),
    "other samples": ((10, 2), {"x": np.ones((9, 3))}, r"x has shape \(9, 3\); expected \(10, d\)"),
    "other inputs": ((9, 2, 4), {"x": np.ones((9, 3))}, r"x has shape \(9, 3\); expected \(9, 4\)"),
    "zero": ((9, 2), {"x": np.zeros((9, 3))}, "x is 0 everywhere"),
    "not finite": ((9, 2), {"x": np.full((9, 3), np.nan)}, "x"),
}


@pytest.mark.parametrize(("sizes", "options", "message"), NARROW_BAD.values(), ids=NARROW_BAD.keys())
def test_bad_sizes_of_narrow_nets_are_refused(sizes, options, message):
    with pytest.raises(ValueError, match=message):
        width_requirements(*sizes, **options)
