"""What an installed package without extras has to do: ``make package`` runs it where nothing else is installed."""

import importlib.util
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import optax

import narrow_jax as nj

OPTIONAL = (
    "sklearn",
    "pandas",
    "matplotlib",
    "tensorflow_datasets",
    "safetensors",
    "jaxtyping",
    "torch",
)
MOST_BYTES = 2_000_000  # of the package itself; measured 1.3 MB


def files():
    """What lies where, and what the metadata say."""
    told = metadata.metadata("narrow_jax")
    assert not [name for name in OPTIONAL if importlib.util.find_spec(name)], (
        "this is no environment without extras"
    )
    assert "site-packages" in nj.__file__
    listed = metadata.files("narrow_jax")
    assert sum(path.locate().stat().st_size for path in listed if path.suffix != ".pyc") < MOST_BYTES
    assert {path.name for path in listed} >= {"py.typed", "LICENSE", "entry_points.txt"}
    assert not [path for path in listed if {"tests", "docs", "benchmarks"} & set(path.parts)]
    assert {path.parts[0] for path in listed if "experiments" in path.parts} == {"narrow_jax"}
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Summary"]
    assert "## Train, save, load, predict" in told.get_payload()


def python():
    """The example of the README, without scikit-learn."""
    x = np.random.default_rng(0).normal(size=(60, 8))
    names = np.where(x[:, 0] * x[:, 1] > 0, "same", "other")
    data = nj.data.from_arrays(x, names, test_fraction=0.2, key=jax.random.key(0))
    params = nj.initializers.mirrored_lecun(jax.random.key(1), inputs=8, width=20)
    tx = nj.constraints.regime(optax.adam(1e-2), radius=1.0)
    result = nj.fit(nj.models.pairwise_apply, params, tx, data, steps=100, callbacks=[])
    folder = nj.save(tempfile.mkdtemp(), result.model)
    assert (nj.load(folder).predict(x) == result.model.predict(x)).all()
    found = nj.memorize(jax.random.key(0), x, np.sign(x[:, 0]), radius=0.1)
    assert found.certificate.holds
    assert nj.sigma_min(nj.jacobian.pairwise(found.params, x)).status == "certified"


def shell():
    """The command line, and what it says where an extra is missing."""
    command = Path(sys.executable).with_name("narrow-jax")

    def run(*words):
        return subprocess.run(
            [command, *words], capture_output=True, text=True, check=False, cwd=tempfile.mkdtemp()
        )

    assert run("--help").returncode == 0
    trained = run("train", "--dataset", "synthetic", "--width", "20", "--steps", "20")
    assert trained.returncode == 0, trained.stderr
    refused = run("train", "--dataset", "digits")
    assert refused.returncode == 2
    assert "narrow_jax[data]" in refused.stderr, refused.stderr
    command = sys.executable
    refused = run("-m", "narrow_jax.experiments.demo")
    assert "pip install 'narrow_jax[data,plots]'" in refused.stderr, refused.stderr


if __name__ == "__main__":
    files()
    python()
    shell()
    print(f"narrow_jax {metadata.version('narrow_jax')} is installed and works without extras")
