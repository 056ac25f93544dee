"""One module a figure: ``python -m experiments.NAME``, or ``python -m narrow_jax.experiments.NAME`` where installed."""

import importlib.util

if importlib.util.find_spec("matplotlib") is None:
    raise ModuleNotFoundError("the experiments draw pictures: pip install 'narrow_jax[data,plots]'")
