"""Results are printed in one line, whatever arrays they hold."""

import jax
import numpy as np
import pytest

import narrow_jax as nj
from narrow_jax._printing import brief

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 4))
Y = np.sign(X[:, 0])
RESULTS = {
    "Memorized": lambda: nj.memorize(KEY, X, Y, radius=0.1),
    "KKTSolution": lambda: nj.solvers.solve_kkt(KEY, X, Y, radius=0.1, width=8, steps=2),
    "SigmaMin": lambda: nj.sigma_min(nj.jacobian.explicit(X)),
    "SingularValues": lambda: nj.spectra.singular_values(nj.jacobian.explicit(X)),
    "Dataset": lambda: nj.data.load("synthetic", samples=20),
    "Normalizer": lambda: nj.data.whiten(X),
    "LambdaStar": lambda: nj.certificates.lambda_star(X, "relu"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_one_line_without_entries(name):
    text = repr(RESULTS[name]())
    assert text.startswith(f"{name}(")
    assert "\n" not in text
    assert "array(" not in text
    assert len(text) < 600


def test_numbers_texts_and_trees():
    tree = {"a": [np.ones(2), np.ones((2, 3))]}
    record = {"size": np.float32(0.25), "count": np.int64(3), "flag": np.True_, "tree": tree}
    assert brief("R", record) == "R(size=0.25, count=3, flag=True, tree={a: [float64[2], float64[2, 3]]})"
    assert brief("R", {"text": "x" * 99}) == f"R(text='{'x' * 59}…')"
    assert brief("R", {"shape": (2, 3), "nothing": None}) == "R(shape=(2, 3), nothing=None)"


def test_sigma_min_names_its_status_outside_and_not_inside_of_jit():
    J = nj.jacobian.explicit(X[:3])
    assert repr(nj.sigma_min(J)).startswith("SigmaMin(status='certified', method=")
    seen = []
    jax.jit(lambda J: seen.append(repr(nj.sigma_min(J))))(J)
    assert "status_code=" in seen[0]
    many = jax.vmap(lambda a: nj.sigma_min(nj.jacobian.explicit(a)))(np.ones((2, 3, 4), np.float32))
    assert "value=float32[2]" in repr(many)


def test_odd_contents():
    class Odd(dict):
        pass

    layers = [(np.ones((2, 3)), np.ones(3)), ()]
    assert brief("R", {"w": layers}) == "R(w=[[float64[2, 3], float64[3]], ()])"
    assert brief("R", {"key": jax.random.key(0), "tree": Odd(a=1)}) == "R(key=key<fry>[], tree={a: 1})"
    shapes = jax.eval_shape(lambda a: nj.sigma_min(nj.jacobian.explicit(a)), np.ones((2, 3), np.float32))
    assert "value=float32[]" in repr(shapes)
    assert "value=None" in repr(jax.tree.map(lambda leaf: None, shapes))
