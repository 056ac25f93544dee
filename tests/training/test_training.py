"""`fit`: the loop against a plain Python loop, its history, divergence, minibatches and bad input."""

import itertools
import json
import math

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import adam
from orders import epoch_order

import narrow_jax as nj

ROUNDING = 1e-9  # float64, 60 steps: the compiled loop and the plain one fuse differently


@pytest.fixture(scope="module")
def problem():
    """A small regression that a pairwise net can fit: x (12, 5), y (12, 1)."""
    key_x, key_y = jax.random.split(jax.random.key(0))
    return jax.random.normal(key_x, (12, 5)), jax.random.normal(key_y, (12, 1))


@pytest.fixture(scope="module")
def start():
    return nj.initializers.mirrored_lecun(jax.random.key(1), inputs=5, width=8)


def in_float64(problem, start):
    """The same problem in float64; asked for under the fixture x64."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (problem, start))


def plain_loop(apply_fn, params, tx, x, y, steps, batches=None):
    """The textbook loop, one Python step at a time; returns params and the loss before every step."""
    state, losses = tx.init(params), []

    def loss(params, x, y):
        return 0.5 * jnp.sum((y - apply_fn(params, x)) ** 2)

    @jax.jit
    def update(params, state, x, y):
        updates, state = tx.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        chosen = slice(None) if batches is None else batches[step]
        losses.append(float(loss(params, x, y)))
        params, state = update(params, state, x[chosen], y[chosen])
    return params, [*losses, float(loss(params, x, y))]


@pytest.mark.parametrize("every", [7, 100])
@pytest.mark.usefixtures("x64")
def test_full_batch_equals_plain_loop(problem, start, every):
    problem, start = in_float64(problem, start)
    x, y = problem
    tx = nj.constraints.regime(adam(0.05), radius=0.1)
    result = nj.fit(nj.models.pairwise_apply, start, tx, problem, steps=60, every=every)
    params, losses = plain_loop(nj.models.pairwise_apply, start, tx, x, y, 60)
    chex.assert_trees_all_close(result.params, params, rtol=ROUNDING, atol=ROUNDING)
    steps = result.history["step"]
    np.testing.assert_array_equal(steps, [*range(0, 60, every), 60])
    np.testing.assert_allclose(result.history["loss"], np.array(losses)[steps], rtol=ROUNDING)
    assert result.steps_taken == 60
    assert not result.diverged


def test_history_reports_the_constraints(problem, start):
    tx = nj.constraints.regime(adam(0.05), radius=0.1)
    result = nj.fit(nj.models.pairwise_apply, start, tx, problem, steps=50)
    last = {name: values[-1] for name, values in result.history.items()}
    distance = float(jnp.linalg.norm(result.params["w"] - start["w"]))
    assert last["distance"] == pytest.approx(distance, rel=1e-5)
    assert last["relative_distance"] == pytest.approx(distance / 0.1, rel=1e-5)
    assert last["ball_active"]
    assert result.history["distance"][0] == 0
    assert "accuracy" not in result.history  # real targets have none


def test_free_optimizer_has_no_constraint_columns(problem, start):
    result = nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-3), problem, steps=3)
    assert set(result.history) == {"step", "loss"}


def test_start_is_neither_changed_nor_donated(problem, start):
    before = jax.tree.map(np.array, start)
    nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-2), problem, steps=5)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, start), before)


def test_line_search_gets_value_and_function(problem, start):
    tx = optax.lbfgs()
    result = nj.fit(nj.models.pairwise_apply, start, tx, problem, steps=40)
    sgd = nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-2), problem, steps=40)
    assert result.history["loss"][-1] < 0.1 * sgd.history["loss"][-1]


def test_loop_compiles_once_for_other_weights_and_step_counts(problem, start):
    traces = []

    def apply_fn(params, x):
        traces.append(x.shape)
        return nj.models.pairwise_apply(params, x)

    tx = nj.constraints.regime(optax.sgd(1e-3), radius=1.0)
    nj.fit(apply_fn, start, tx, problem, steps=200, every=2)
    first = len(traces)
    other = jax.tree.map(lambda leaf: leaf * 1.01, start)
    nj.fit(apply_fn, other, tx, problem, steps=300, every=3)
    assert len(traces) == first + 1  # the shape check of the call; nothing was traced for compilation


class TestMinibatches:
    def test_every_sample_once_an_epoch(self, start):
        x, y = jnp.eye(12, 5), jnp.arange(12.0)[:, None]
        seen = []

        def record(outputs, targets):
            jax.debug.callback(lambda t: seen.append(t.ravel().tolist()), targets)
            return jnp.mean((outputs - targets) ** 2)

        nj.fit(
            nj.models.pairwise_apply,
            start,
            optax.sgd(0.0),
            (x, y),
            steps=6,
            loss=record,
            batch_size=4,
            key=jax.random.key(3),
            every=6,
        )
        jax.effects_barrier()
        drawn = [batch for batch in seen if len(batch) == 4]
        epochs = [sorted(itertools.chain(*drawn[i : i + 3])) for i in (0, 3)]
        assert epochs == [list(range(12))] * 2
        assert drawn[:3] != drawn[3:]

    @pytest.mark.usefixtures("x64")
    def test_equals_plain_loop_over_the_documented_order(self, problem, start):
        problem, start = in_float64(problem, start)
        x, y = problem
        key, size = jax.random.key(5), 5  # 12 = 2·5 + 2: two samples wait for another epoch
        batches = []
        for step in range(8):
            epoch, position = divmod(step, 2)
            order = epoch_order(key, epoch, 12)
            batches.append(order[position * size : (position + 1) * size])
        tx = optax.sgd(0.05, momentum=0.9)
        result = nj.fit(
            nj.models.pairwise_apply, start, tx, problem, steps=8, batch_size=size, key=key, every=3
        )
        params, losses = plain_loop(nj.models.pairwise_apply, start, tx, x, y, 8, batches)
        chex.assert_trees_all_close(result.params, params, rtol=ROUNDING, atol=ROUNDING)
        np.testing.assert_allclose(result.history["loss"], np.array(losses)[[0, 3, 6, 8]], rtol=ROUNDING)

    def test_same_key_same_run_other_key_other_run(self, problem, start):
        def run(seed):
            key = jax.random.key(seed)
            return nj.fit(
                nj.models.pairwise_apply, start, optax.sgd(0.05), problem, steps=9, batch_size=4, key=key
            ).params

        chex.assert_trees_all_equal(run(0), run(0))
        assert not np.allclose(run(0)["w"], run(1)["w"])


class TestDivergence:
    @pytest.mark.parametrize("every", [1, 10, 1000])
    def test_names_the_step_and_keeps_the_last_finite_state(self, problem, start, every):
        tx = optax.sgd(1e3)
        result = nj.fit(nj.models.pairwise_apply, start, tx, problem, steps=1000, every=every)
        assert result.diverged
        x, y = problem
        _, losses = plain_loop(nj.models.pairwise_apply, start, tx, x, y, result.steps_taken + 1)
        assert math.isfinite(losses[-2])
        assert not math.isfinite(losses[-1])
        chex.assert_tree_all_finite(result.params)
        assert np.isfinite(result.history["loss"]).all()
        assert result.history["step"][-1] <= result.steps_taken

    def test_non_finite_start(self, problem, start):
        params = {**start, "v": start["v"] * 1e38}
        params["w"] = params["w"].at[:, 0].add(1.0)  # off the mirrored point, so that the output overflows
        result = nj.fit(nj.models.pairwise_apply, params, optax.sgd(1e-3), problem, steps=5)
        assert result.diverged
        assert result.steps_taken == 0
        chex.assert_trees_all_equal(result.params, params)


def test_model_with_state_updates_it_in_training_only(problem):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
            return nn.Dense(1)(x)

    net, (x, y) = Net(), problem
    variables = net.init(jax.random.key(0), x, train=False)

    def apply_fn(params, state, x, train):
        outputs, updated = net.apply(
            {"params": params, "batch_stats": state}, x, train, mutable=["batch_stats"]
        )
        return outputs, updated["batch_stats"]

    result = nj.fit(
        apply_fn,
        variables["params"],
        optax.sgd(1e-2),
        (x, y),
        steps=3,
        model_state=variables["batch_stats"],
    )
    mean = result.model_state["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, jnp.mean(x, axis=0) * (1 - 0.5**3), rtol=1e-5)
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_classification_with_cross_entropy(problem):
    x, _ = problem
    labels = jnp.arange(12) % 3
    params = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=12, outputs=3)
    tx = nj.constraints.regime(adam(0.05), radius=1.0)
    result = nj.fit(nj.models.pairwise_apply, params, tx, (x, labels), steps=400, loss="cross_entropy")
    assert result.history["loss"][0] == pytest.approx(math.log(3), rel=1e-6)  # zero logits at the start
    assert result.history["accuracy"][-1] == 1


def test_monitor_is_carried_and_recorded(problem, start):
    counter = nj.monitors.Monitor(
        "updates",
        lambda params, x: jnp.zeros((), jnp.int32),
        lambda state, params, x: (state + 1, state + x.shape[0]),
    )
    result = nj.fit(
        nj.models.pairwise_apply, start, optax.sgd(1e-3), problem, steps=6, every=2, monitors=[counter]
    )
    assert result.history["updates"].tolist() == [12, 13, 14, 15]


def test_record_is_one_json_line_a_record(problem, start, tmp_path):
    path = tmp_path / "history.jsonl"
    result = nj.fit(
        nj.models.pairwise_apply,
        start,
        optax.sgd(1e-3),
        problem,
        steps=20,
        every=5,
        callbacks=[nj.callbacks.Record(path)],
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 5, 10, 15, 20]
    np.testing.assert_allclose([line["loss"] for line in lines], result.history["loss"])


def test_progress_bar_on_request_only(problem, start, capsys):
    run = {"steps": 4, "every": 1}
    nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-3), problem, **run)
    assert capsys.readouterr().err == ""
    nj.fit(
        nj.models.pairwise_apply,
        start,
        optax.sgd(1e-3),
        problem,
        **run,
        callbacks=[nj.callbacks.Progress(True)],
    )
    assert "4/4" in capsys.readouterr().err


BAD_DATA = {
    "nan in x": (
        lambda x, y: (x.at[2, 3].set(jnp.nan), y),
        ValueError,
        r"x has 1 non-finite.*nan at index \(2, 3\)",
    ),
    "inf in y": (
        lambda x, y: (x, y.at[4].set(jnp.inf)),
        ValueError,
        r"y has 1 non-finite.*inf at index \(4, 0\)",
    ),
    "no samples": (lambda x, y: (x[:0], y[:0]), ValueError, "there is no sample"),
    "row mismatch": (lambda x, y: (x, y[:-1]), ValueError, r"x has 12 samples and y has shape \(11, 1\)"),
    "y without column": (lambda x, y: (x, y[:, 0]), ValueError, r"y has shape \(12,\).*pass y\[:, None\]"),
    "integer y": (lambda x, y: (x, jnp.zeros((12, 1), int)), TypeError, "expected real targets"),
    "x without axis": (lambda x, y: (x[:, 0], y), ValueError, "one row a sample"),
    "x in another dtype": (
        lambda x, y: (x.astype(jnp.bfloat16), y),
        TypeError,
        "x is bfloat16 and the params are float32",
    ),
    "y in another dtype": (lambda x, y: (x, y.astype(jnp.bfloat16)), TypeError, "y is bfloat16"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data(problem, start, change, error, message):
    with pytest.raises(error, match=message):
        nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-3), change(*problem), steps=1)


BAD_OPTIONS = {
    "no steps": ({"steps": 0}, "steps is 0"),
    "no record": ({"every": 0}, "every is 0"),
    "large batch": (
        {"batch_size": 13, "key": jax.random.key(0)},
        "batch_size is 13 and there are 12 samples",
    ),
    "batch without key": ({"batch_size": 4}, "pass key="),
    "unknown loss": ({"loss": "sqared"}, "unknown loss 'sqared': did you mean 'squared'"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(problem, start, options, message):
    with pytest.raises(ValueError, match=message):
        nj.fit(nj.models.pairwise_apply, start, optax.sgd(1e-3), problem, **({"steps": 1} | options))


def test_dropout_keys_are_variables_of_the_model(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)).astype(np.float32)
    y = np.sign(x[:, :1])
    drop = nn.Dropout(0.5)

    def apply_fn(params, state, x, train):
        hidden = jnp.tanh(x @ params["w"])
        if not train:
            return hidden @ params["v"], state
        now, later = jax.random.split(state)
        return drop.apply({}, hidden, deterministic=False, rngs={"dropout": now}) @ params["v"], later

    params = nj.initializers.lecun(jax.random.key(0), inputs=3, width=8)
    saved = nj.callbacks.Checkpoint(tmp_path)
    best = nj.callbacks.Best("loss")
    options = {"steps": 30, "model_state": jax.random.key(1)}
    tx = optax.sgd(1e-2)
    whole = nj.fit(apply_fn, params, tx, (x, y), callbacks=[saved, best], **options)
    assert not np.array_equal(*map(jax.random.key_data, (whole.model_state, options["model_state"])))
    step = nj.checkpoints.steps(tmp_path)[0]
    resumed = [nj.callbacks.Checkpoint(tmp_path, resume=step)]
    again = nj.fit(apply_fn, params, tx, (x, y), callbacks=resumed, **options)
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])
    other = nj.fit(
        apply_fn, params, tx, (x, y), callbacks=[], **(options | {"model_state": jax.random.key(2)})
    )
    assert not np.array_equal(other.params["w"], whole.params["w"])
    np.testing.assert_array_equal(whole.model.outputs(x), apply_fn(whole.params, None, x, False)[0])
