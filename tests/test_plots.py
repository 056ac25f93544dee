"""Figures: drawn into the Axes that are given, returned, in one style; what is in them is what was handed over."""

import io

import jax
import numpy as np
import optax
import pytest

import narrow_jax as nj

mpl = pytest.importorskip("matplotlib")
HISTORY = {
    "step": np.array([0, 5, 10]),
    "loss": np.array([4.0, 2.0, 1.0]),
    "test_loss": np.array([5.0, 3.0, 4.0]),
    "sigma_min": np.array([0.3, 0.2, 0.1]),
    "accuracy": np.array([0.5, 0.0, 1.0]),
}


def axes():
    return mpl.figure.Figure().subplots()


def data(line):
    return [values.tolist() for values in line.get_data()]


def test_history_has_what_is_there():
    ax = nj.plots.history(HISTORY)
    assert [data(line) for line in ax.lines] == [
        [[0, 5, 10], HISTORY[name].tolist()] for name in ("loss", "test_loss")
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "test loss"]
    assert ax.get_yscale() == "log"
    accuracy = nj.plots.history(HISTORY, ["accuracy"])
    assert accuracy.get_yscale() == "linear"
    assert accuracy.get_ylabel() == "accuracy"


DRAWN = {
    "history": lambda ax: nj.plots.history(HISTORY, ax=ax),
    "sigma_min": lambda ax: nj.plots.sigma_min(HISTORY, ax=ax),
    "sweep": lambda ax: nj.plots.sweep(np.eye(2), ("a", [1.0, 2.0]), ("b", [3.0, 4.0]), ax=ax),
    "loss_bound": lambda ax: nj.plots.loss_bound(HISTORY, lambda step: 10.0, ax=ax),
    "spectrum": lambda ax: nj.plots.spectrum(*spectra(), ax=ax),
}


def spectra():
    x = np.random.default_rng(0).normal(size=(6, 4))
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=8)
    J = nj.jacobian.pairwise(params, x)
    return nj.singular_values(J), nj.sigma_min(J)


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_where_it_is_asked_for_and_nothing_is_left_behind(name):
    before = dict(mpl.rcParams)
    own = axes()
    assert DRAWN[name](own) is own
    assert own.has_data()
    assert DRAWN[name](None).figure is not own.figure
    assert dict(mpl.rcParams) == before
    own.figure.savefig(io.BytesIO(), format="svg")


def test_heat_map_hatches_what_is_not_finite():
    ax = nj.plots.sweep(np.array([[1.0, np.nan]]), ("radius", [0.1]), ("seed", [0, 1]), "accuracy")
    assert [text.get_text() for text in ax.texts] == ["1", "nan"]
    assert ax.images[0].get_array().mask.tolist() == [[False, True]]
    assert ax.patch.get_hatch() == "///"


def test_loss_stays_under_its_proven_bound():
    x = np.random.default_rng(0).normal(size=(6, 4))
    y = np.sign(x[:, :1])
    with jax.enable_x64(True):
        params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=8, dtype=float)
        proof = nj.certificates.gradient_descent(params, x, y)
        scaled = params | {"v": params["v"] * (proof.scale or 1)}
        proof = nj.certificates.gradient_descent(scaled, x, y)
        assert proof.holds, proof.reason
        labels = {"w": "w", "v": "frozen"}
        tx = optax.multi_transform(
            {"w": optax.sgd(proof.max_learning_rate), "frozen": optax.set_to_zero()}, labels
        )
        run = nj.fit(nj.models.pairwise_apply, scaled, tx, (x, y), steps=50, callbacks=[])
    ax = nj.plots.loss_bound(run.history, proof.loss_bound)
    (_, loss), (_, bound) = (data(line) for line in ax.lines)
    assert all(a <= b * (1 + 1e-9) for a, b in zip(loss, bound, strict=True))


def test_equal_pictures_are_equal_files():
    pictures = []
    for _ in range(2):
        file = io.BytesIO()
        with nj.plots.style():
            nj.plots.history(HISTORY).figure.savefig(file, format="svg", metadata={"Date": None})
        pictures.append(file.getvalue())
    assert pictures[0] == pictures[1]


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"the history has none of nothing; expected some of step, loss"):
        nj.plots.history(HISTORY, ["nothing"])
    with pytest.raises(ValueError, match=r"no 'sigma' but .*monitors=\[nj\.monitors\.SigmaMinMonitor"):
        nj.plots.sigma_min(HISTORY, "sigma")
    with pytest.raises(ValueError, match=r"values have shape \(2, 2\); expected \(1, 2\)"):
        nj.plots.sweep(np.eye(2), ("a", [1.0]), ("b", [1.0, 2.0]))
