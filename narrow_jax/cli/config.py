"""The data, model and start that the config of a run names, and the run in its folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from narrow_jax import _checks, activations, checkpoints, constraints, initializers, jacobian, models
from narrow_jax import data as datasets
from narrow_jax._typing import ApplyFn, Params
from narrow_jax.checkpoints import runs, strict_json
from narrow_jax.cli.train_config import OWN, SWEPT, TrainConfig

OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
}

_MOST = np.iinfo(np.int32).max
_LAST_SEED = 2**32 - 1  # a key of JAX takes 32 bits of it: others would repeat


def check(config: TrainConfig) -> None:
    """Require what can be judged before any data are loaded.

    Raises:
        ValueError: an unknown word, or a number out of range.
    """
    _check_data(config)
    activations.get(config.activation)
    _checks.radius(config.radius)
    _checks.positive("learning rate", config.learning_rate)
    _checks.count("steps", config.steps, maximum=_MOST)
    _checks.count("seed", config.seed, minimum=0, maximum=_LAST_SEED)
    for name in ("samples", "batch_size", "every"):
        if (value := getattr(config, name)) is not None:
            _checks.count(name, value, maximum=_MOST)
    if config.widths is not None:
        _check_widths(config)
    else:
        if config.model != "standard":
            _checks.even_width(config.width)
        _checks.count("width", config.width, maximum=_MOST)
    _checks.zeta(config.zeta)
    _checks.kappa(config.kappa)
    _checks.positive("v_scale", config.v_scale)


def _check_data(config: TrainConfig) -> None:
    _checks.choice("data set", config.dataset, datasets.NAMES)
    if not 0 <= config.test_fraction < 1:
        raise ValueError(f"test_fraction is {config.test_fraction}; expected a number ≥ 0 and < 1")
    if config.data is None:
        if given := [name for name in OWN if getattr(config, name) is not None]:
            raise ValueError(f"--{given[0]} goes with --data, a file of your own: pass --data too")
        return
    if config.labels == "random":
        raise ValueError("--labels random goes with --dataset; expected the target of --data: leave it out")


def _check_widths(config: TrainConfig) -> None:
    if config.model == "standard":
        raise ValueError("widths are those of a deep pairwise net; expected --model pairwise, or --width")
    for layer, width in enumerate(config.widths or (), start=1):
        _checks.count(f"the width of layer {layer}", width, maximum=_MOST)


def load_data(
    config: TrainConfig, raw_dir: Path | None = None, data_dir: Path | None = None
) -> datasets.Dataset:
    """Return the data set of a run, once its config is checked; say which columns were dropped."""
    check(config)
    if config.data is not None:
        data = _own_data(config)
    else:
        data = datasets.load(
            config.dataset,
            labels=config.labels,
            classes=config.classes,
            samples=config.samples,
            normalize=None if config.normalize == "none" else config.normalize,
            seed=config.seed,
            test_fraction=config.test_fraction,
            raw_dir=raw_dir,
            data_dir=data_dir,
        )
    if isinstance(data.normalizer, datasets.Normalizer) and data.normalizer.kept is not None:
        columns, kept = len(data.normalizer.mean), len(data.normalizer.kept)
        warnings.warn(
            f"{columns - kept} of {columns} columns are constant in the training rows and were dropped",
            stacklevel=2,
        )
    return data


def _own_data(config: TrainConfig) -> datasets.Dataset:
    """Return the data of a file, of more training rows than are asked for a random subset."""
    assert config.data is not None
    data = datasets.from_file(
        config.data,
        config.target,
        test=config.test,
        test_fraction=config.test_fraction,
        key=jax.random.key(config.seed),
        normalize={None: "standardize", "none": None}.get(config.normalize, config.normalize),
        task=config.task,
    )
    if config.samples is None or config.samples >= len(data.x):
        return data
    rows = jax.random.permutation(jax.random.key(config.seed), len(data.x))[: config.samples]
    chosen = np.asarray(rows)
    labels = None if data.labels is None else data.labels[chosen]
    return data._replace(x=data.x[chosen], y=data.y[chosen], labels=labels)


class Built(NamedTuple):
    """What a config makes of its data: the model, its Jacobian operator, the start and the optimizer."""

    apply_fn: ApplyFn
    jacobian: Callable[..., Any]
    params: Params
    tx: optax.GradientTransformation


def build(config: TrainConfig, data: datasets.Dataset, strict: bool = False) -> Built:
    """Return the model, its Jacobian operator, the start and the optimizer of a run."""
    start = Start.of(config, data)
    operator: Any
    if config.widths is not None:
        jacobian.check_widths(data.x, config.widths, start.outputs, strict=strict)
        operator = jacobian.pairwise_mlp
    elif config.model == "standard":
        operator = jacobian.standard
    else:
        jacobian.check_width(data.x, config.width, start.outputs, strict=strict)
        operator = jacobian.pairwise
    _check_scale(config, start.drawn(config.seed)["v"])
    params, tx = start()
    activation = activations.get(config.activation)
    return Built(apply_fn_of(config), partial(operator, activation=activation), params, tx)


@dataclass(frozen=True)
class Start:
    """Where runs of a config begin, with so many inputs and outputs; equal for equal ones, for the cache of jit."""

    config: TrainConfig
    inputs: int
    outputs: Any

    @classmethod
    def of(cls, config: TrainConfig, data: datasets.Dataset) -> Start:
        """Return the start for a data set."""
        outputs = data.classes if config.loss == "cross_entropy" else data.y.shape[1]
        return cls(config, data.x.shape[1], outputs)

    def __call__(self, **point: Any) -> tuple[Params, optax.GradientTransformation]:
        """Return params and optimizer, at a point of a sweep its own, which may be traced."""
        at = {name: getattr(self.config, name) for name in SWEPT} | point
        params = self.drawn(at["seed"])
        params["v"] = self.config.v_scale * params["v"]
        return params, constraints.regime(
            _optimizer(self.config, at["learning_rate"]), at["radius"], **self._cone()
        )

    def drawn(self, seed: Any) -> Params:
        """Return the params before their output weights are scaled."""
        config, key = self.config, jax.random.key(seed)
        sizes = {"inputs": self.inputs, "outputs": self.outputs}
        if config.widths is not None:
            return initializers.mirrored_mlp(key, **sizes, widths=config.widths, **self._cone())
        if config.model == "standard":
            return initializers.lecun(key, **sizes, width=config.width)
        return initializers.mirrored_lecun(key, **sizes, width=config.width, **self._cone())

    def _cone(self) -> dict[str, Any]:
        standard = self.config.widths is None and self.config.model == "standard"
        return {"zeta": None} if standard else {"zeta": self.config.zeta, "kappa": self.config.kappa}


def _check_scale(config: TrainConfig, v: Any) -> None:
    largest = config.v_scale * max(1.0, float(jnp.max(jnp.abs(v))))
    if not largest <= float(jnp.finfo(v.dtype).max):
        raise ValueError(f"v_scale is {config.v_scale:g}: the output weights are then beyond {v.dtype}")


def apply_fn_of(config: TrainConfig) -> ApplyFn:
    """Return the function of a run's net."""
    net = models.standard_apply if config.model == "standard" else models.pairwise_apply
    net = net if config.widths is None else models.pairwise_mlp_apply
    return partial(net, activation=activations.get(config.activation))


def trained(apply_fn: ApplyFn, params: Params, data: datasets.Dataset) -> models.Model:
    """Return the model of a net that was solved for on a data set, in the squared loss."""
    seen = jax.ShapeDtypeStruct(data.x.shape[1:], jax.tree.leaves(params)[0].dtype)
    maps: dict[str, Any] = {"target_map": data.target_map, "classes": data.names, "columns": data.columns}
    return models.Model(apply_fn, params, normalizer=data.normalizer, inputs=seen, **maps)


def _optimizer(config: TrainConfig, rate: Any) -> optax.GradientTransformation:
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, config.steps)
    return OPTIMIZERS[config.optimizer](rate)


def claim(folder: Path, replace: bool) -> None:
    """Require a folder that a run may be written to.

    Raises:
        FileExistsError: it holds a run, and that may not be replaced, or has checkpoints.
    """
    if not replace:
        runs.vacant(folder, "replace it with --overwrite")
    elif checkpoints.steps(folder / "checkpoints"):
        raise FileExistsError(
            f"{folder / 'checkpoints'} holds checkpoints of another run, which --overwrite does not delete: remove "
            "them, or choose another folder"
        )


def write_run(
    folder: Path,
    config: Mapping[str, Any],
    model: models.Model,
    more: Mapping[str, Callable[[Path], object]],
    start: Params | None = None,
) -> None:
    """Write model, config and start of a run, and what else it has, in place of what was there."""
    runs.replace(folder, models.files(model, start) | runs.config_file(config) | dict(more))


def read_config(path: Path) -> TrainConfig:
    """Return the config of a file.

    Raises:
        FileNotFoundError, ValueError: no such file, no JSON, unknown fields, or words that are none of a field's.
    """
    return TrainConfig.from_json(strict_json.read(path))


def read_run(folder: Path) -> tuple[TrainConfig, dict[str, Any], Params | None]:
    """Return the config and the params of a run of `train` or `memorize`, and its start: None where none is saved.

    Of a run that has not ended yet the params are those of its newest checkpoint.

    Raises:
        FileNotFoundError, ValueError: as ``runs.load``, ``checkpoints.load_params`` and ``TrainConfig.from_json``.
    """
    places = [place for place in (folder, folder / "checkpoints") if checkpoints.steps(place)]
    if places and not (folder / runs.CONFIG).is_file():
        weights = checkpoints.load_params(places[0])
        return _config_of(places[0], weights.config), weights.params, None
    trees, saved = runs.read(folder)
    return TrainConfig.from_json(saved), trees["params"], trees.get("start")


def _config_of(folder: Path, saved: Mapping[str, Any]) -> TrainConfig:
    own = saved.get("config", {})
    if missing := [name for name in TrainConfig.names(own.get("widths"), own.get("data")) if name not in own]:
        raise ValueError(
            f"the checkpoints in {folder} are not of `narrow-jax train` (their config has no {', '.join(missing)}): "
            "nj.checkpoints.load_params gives their weights"
        )
    return TrainConfig.from_json(own)
