"""A small run that saves itself often: what the tests of resuming stop, in this process and in others."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optimizers import adam

import narrow_jax as nj

STEPS, EVERY = 23, 2
RNG = np.random.default_rng(0)  # NumPy: nothing to compile before the run
X = RNG.normal(size=(12, 5)).astype(np.float32)
Y = np.sign(X[:, :1])
START = {
    "w": jnp.asarray(np.tile(RNG.normal(size=(5, 4)), (1, 2)).astype(np.float32)),
    "v": jnp.asarray(np.ones((4, 1), np.float32)),
}
TX = nj.constraints.regime(optax.chain(optax.clip(1.0), adam(0.02)), radius=0.3)
COUNTER = nj.monitors.Monitor(
    "records",
    lambda params, x: jnp.zeros((), jnp.int32),
    lambda state, params, x: (state + 1, state),
)


def apply_fn(params, state, x, train):
    """A pairwise net with a moving average of its inputs, as BatchNorm has one."""
    mean = jnp.mean(x, axis=0) if train else state
    return nj.models.pairwise_apply(params, x - mean[None]), 0.9 * state + 0.1 * mean


def run(folder=None, *, every_saved=None, resume=False, config=None, record=None, **options):
    """Train; an epoch has 3 steps, so that most checkpoints, at 2, 6, 10, …, 22 and 23, fall within one."""
    arguments = {"data": (X, Y), "params": START, "tx": TX, "key": jax.random.key(2), "batch_size": 4}
    arguments |= {"steps": STEPS, "every": EVERY, "model_state": jnp.zeros(5), "monitors": [COUNTER]}
    callbacks = [] if record is None else [nj.callbacks.Record(record)]
    if folder is not None:
        callbacks.append(nj.callbacks.Checkpoint(folder, every_saved, resume=resume, config=config))
    # strict in fixtures and other processes too: the settings are part of the compiled program's name
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return nj.fit(apply_fn, callbacks=callbacks, **(arguments | options))


def run_alone(folder, cache):
    """The same in a process of its own, in the settings of the suite, with its compiled programs."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    run(folder, resume=True)
    signal.pause()  # there is nothing left to do but to be killed
