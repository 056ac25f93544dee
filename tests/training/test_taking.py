"""What users hand to training: taken, or said in one sentence before anything is compiled."""

import flax.core
import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import narrow_jax as nj

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, 5)), RNG.normal(size=(8, 1))
X32, Y32, LABELS = X.astype(np.float32), Y.astype(np.float32), np.arange(8) % 2
P = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)
P2 = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8, outputs=2)
NET, SGD = nj.models.pairwise_apply, optax.sgd(0.01)
BATCHES = {"batch_size": 4, "key": jax.random.key(0)}
MODULE = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True)])
VARIABLES = jax.eval_shape(MODULE.init, jax.random.key(0), X32)


def fit(apply_fn=NET, params=P, tx=SGD, data=(X32, Y32), **options):
    return nj.fit(apply_fn, params, tx, data, **({"steps": 2} | options))


TAKEN = {
    "float64": lambda: fit(data=(X, Y), evaluation=(X, Y)),
    "lists": lambda: fit(data=(X.tolist(), Y.tolist()), evaluation=(X.tolist(), Y.tolist())),
    "float64 params": lambda: fit(params=jax.tree.map(lambda leaf: np.asarray(leaf, float), P)),
    "numbers of NumPy and JAX": lambda: fit(steps=np.int64(2), every=jnp.int32(1)),
    "frozen params": lambda: fit(params=flax.core.freeze(P)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_a_meaning_is_taken_as_float32(name):
    expected, found = fit(every=1), TAKEN[name]()
    np.testing.assert_array_equal(found.history["loss"][[0, -1]], expected.history["loss"][[0, -1]])
    for a, b in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_streams_sweeps_and_keys_of_the_old_style_take_the_same():
    whole = fit(**BATCHES).params["w"]
    old = fit(**(BATCHES | {"key": jax.random.PRNGKey(0), "batch_size": np.uint8(4)})).params["w"]
    rows = fit(data=nj.data.Stream(list(X), Y.tolist()), **BATCHES).params["w"]
    np.testing.assert_array_equal(whole, old)
    np.testing.assert_allclose(whole, rows, rtol=1e-5)
    swept = nj.sweep(NET, lambda rate: (P, optax.sgd(rate)), (X, Y), grid={"rate": [0.01]}, steps=np.int64(2))
    np.testing.assert_allclose(swept.params["w"][0], fit().params["w"], rtol=1e-5)


def test_float64_is_not_cast_where_x64_is_on(x64):
    with pytest.raises(TypeError, match="x is float64 and the params are float32; nothing is cast silently"):
        fit(data=(X, Y))


class Nameless:
    """A source whose samples have no number."""

    def __iter__(self):
        return iter(X32)


def stateful(after):
    def apply_fn(params, state, x, train):
        return (NET(params, x), after(state)) if after else NET(params, x)

    return apply_fn


STATE = {"mean": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}
CE, OTHER_STATE = (
    {"params": P2, "loss": "cross_entropy"},
    "apply_fn returns another model_state than it was given",
)
SAID = {
    # data
    "text": (
        {"data": (np.full((8, 5), "a"), Y32)},
        "x is an array of dtype <U1; expected an array of numbers",
    ),
    "inputs by name": ({"data": ({"a": X32}, Y32)}, "x is a dict of 1; .*several inputs are not supported"),
    "two inputs": ({"data": ((X32, X32), Y32)}, "x is a tuple of 2; .*several inputs are not supported"),
    "weights": (CE | {"data": (X32, (LABELS, Y32))}, "y is a tuple of 2; expected one array: join labels and weights"),
    "words": (CE | {"data": (X32, ["a", "b"] * 4)}, r"y holds words such as 'a'; .*np.unique\(y, return_inv"),
    "one part": ({"data": (X32,)}, r"data is a tuple of 1; expected a pair of arrays: pass \(x, y\)"),
    "an array": ({"data": X32}, "data is a ndarray; expected a pair of arrays"),
    "no data": ({"data": None}, "data is a NoneType; expected a pair of arrays"),
    "complex": ({"data": (X32 + 1j, Y32)}, r"x has dtype complex64; .*np.concatenate\(\[x.real, x.imag\]"),
    "too large": ({"data": (X * 1e60, Y)}, r"x is float64 and \d+ of its entries do not fit into float32, .*first"),
    "labels that wrap": (
        CE | {"data": (X32, LABELS + 2**33)},
        "y is int64 and 8 of its entries do not fit into int32, .*the first is 8589934592 at index",
    ),
    "evaluation of one part": ({"evaluation": (X32,)}, "evaluation is a tuple of 1; expected a pair"),
    "evaluation of text": ({"evaluation": ("a", Y32)}, r"evaluation: x is a str \('a'\); expected an array"),
    # params
    "no params": ({"params": None}, "params are None, without any leaf; expected a tree of arrays"),
    "a number": ({"params": P | {"s": 1.0}}, r"params\[s\] is the number 1.0; .*pass np.asarray\(1.0, np.float32\)"),
    "a count": ({"params": P | {"s": np.arange(3)}}, r"params\[s\] has dtype int32, which has no"),
    "a key": ({"params": P | {"s": jax.random.key(0)}}, r"params\[s\] is a random key; expected an array"),
    "all variables": ({"params": VARIABLES}, r"batch_stats beside the params.*variables\['params'\].*model_state"),
    "a module for params": ({"params": MODULE}, "params is a Flax module; expected an array of numbers"),
    "a module": ({"apply_fn": MODULE}, "apply_fn is a Sequential; expected a function.*pass module.apply"),
    # optimizer, key, counts
    "uncalled": ({"tx": optax.adam}, r"tx is adam itself; .*call it, such as adam\(1e-2\)"),
    "no tx": ({"tx": None}, "tx is a NoneType; expected a gradient transformation, such as optax.adam"),
    "a seed": ({"key": 42, "batch_size": 4}, r"key is 42; .*pass jax.random.key\(42\)"),
    "real steps": ({"steps": 3.0}, "steps is 3.0; expected an integer ≥ 1"),
    "true steps": ({"steps": np.True_}, "steps is np.True_; expected an integer ≥ 1"),
    # outputs and losses
    "no mean": ({"loss": lambda f, y: (f - y) ** 2}, r"the loss has shape \(8, 1\); expected one.*take its mean"),
    "counted": ({"loss": lambda f, y: jnp.sum(f > y)}, "the loss has dtype int32; expected a real floating number"),
    "outputs by name": ({"apply_fn": lambda p, x: {"o": NET(p, x)}}, "the model's output is a dict; the stock losses"),
    "outputs and more": ({"apply_fn": lambda p, x: (NET(p, x), 1)}, "the model's output is a tuple; the stock losses"),
    "a metric's values": ({"metrics": {"m": lambda f, y: f}}, r"the metric 'm' has shape \(8, 1\); expected"),
    # monitors and metrics
    "one monitor": ({"monitors": nj.monitors.Monitor("m", None, None)}, r"monitors is a Monitor; .*pass \[monitor\]"),
    "a word as monitor": ({"monitors": ["sigma_min"]}, "monitors holds a str; expected nj.monitors.Monitor"),
    "a class as monitor": (
        {"monitors": [nj.monitors.SigmaMinMonitor]},
        r"monitors holds SigmaMinMonitor; .*called with its Jacobian",
    ),
    "metrics as a list": ({"metrics": [len]}, "metrics is a list; expected functions by name"),
    "a metric of NumPy": ({"metrics": {"r": lambda f, y: np.mean(np.asarray(f))}}, "'r' cannot be compiled: .*jnp"),
    "float labels": (CE | {"data": (X32, LABELS.astype(np.float32))}, r"expects integer labels.*pass y.astype\(int\)"),
    "a column of labels": (CE | {"data": (X32, LABELS[:, None])}, r"expects labels \(n,\).*pass y\[:, 0\]"),
    "variables forgotten": ({"apply_fn": nj.models.Stateful(MODULE)}, "model_state is None; .*pass model_state="),
    # model_state
    "state of another shape": (
        {"apply_fn": stateful(lambda s: s | {"mean": jnp.zeros(4)}), "model_state": STATE},
        rf"{OTHER_STATE}: at 'mean' \(float32\[3\] expected, float32\[4\] found\)",
    ),
    "state of another dtype": (
        {"apply_fn": stateful(lambda s: s | {"count": jnp.zeros(())}), "model_state": STATE},
        rf"{OTHER_STATE}: at 'count' \(int32\[\] expected, float32\[\] found\)",
    ),
    "state of fewer": (
        {"apply_fn": stateful(lambda s: {"mean": s["mean"]}), "model_state": STATE},
        rf"{OTHER_STATE}: at 'count' \(int32\[\] expected, nothing found\)",
    ),
    "no state": ({"apply_fn": stateful(None), "model_state": STATE}, r"with model_state expected a pair \(outputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_has_no_meaning_is_said(name, unchecked):
    options, message = SAID[name]
    with pytest.raises((TypeError, ValueError), match=message):
        fit(**options)


@pytest.mark.parametrize(
    ("setup", "options", "message"),
    [
        (lambda rate: (P, optax.sgd), {}, "tx is sgd itself"),
        (lambda rate: (P | {"s": 1.0}, SGD), {}, r"params\[s\] is the number 1.0"),
        (lambda rate: (P, optax.sgd(rate)), {"key": 3, "batch_size": 4}, "key is 3; expected a random key"),
        (lambda rate: (P, optax.sgd(rate)), {"loss": lambda f, y: f}, "the loss has shape"),
    ],
)
def test_sweep_says_the_same(setup, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        nj.sweep(NET, setup, (X32, Y32), grid={"rate": [0.1]}, steps=2, **options)


STREAMS = {
    "by name": (lambda: [{"image": row, "label": 1} for row in X32], "sample 0 is a dict of 2; .*row\\['image'\\]"),
    "pairs": (lambda: [(row, 1) for row in X32], r"sample 0 is a tuple of 2; .*row\[0\]"),
    "pairs of Grain": (lambda: grain.MapDataset.source(list(zip(X32, Y32, strict=True))), "sample 0 is a tuple of 2"),
    "unlike": (lambda: [row[: 2 + i % 2] for i, row in enumerate(X32)], r"samples have the shapes \(2,\).*crop or pad"),
    "words": (lambda: ["a"] * 8, r"sample 0 is a str \('a'\); expected an array"),
    "without numbers": (Nameless, "x is a Nameless, without a length or samples by their number"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_rows_that_are_no_arrays_are_said(name):
    rows, message = STREAMS[name]
    with pytest.raises((TypeError, ValueError), match=message):
        fit(data=nj.data.Stream(rows(), Y32), **BATCHES)


def test_stream_says_what_its_targets_and_keys_are():
    with pytest.raises(TypeError, match="y is a tuple of 2; expected one array"):
        fit(data=nj.data.Stream(X32, (Y32, Y32)), **BATCHES)
    with pytest.raises(TypeError, match="key is 3; expected a random key"):
        nj.data.Stream(X32, Y32).batches(3, 4)


@pytest.mark.parametrize("given", [flax.core.freeze, dict])
@pytest.mark.parametrize("returned", [flax.core.freeze, dict])
def test_model_state_keeps_the_type_in_which_it_was_given(given, returned):
    def count(state):
        return returned(dict(state) | {"count": state["count"] + 1})

    result = fit(stateful(count), model_state=given(STATE))
    assert type(result.model_state) is type(given(STATE))
    assert int(result.model_state["count"]) == 2


def test_numbers_of_numpy_and_jax_are_saved_and_compared(tmp_path):
    config = {"rate": np.float32(0.5), "sizes": np.arange(2), "on": np.True_, "scale": jnp.ones(())}
    run = {"steps": np.int64(4), "every": np.int32(2), **BATCHES}
    fit(callbacks=[nj.callbacks.Checkpoint(tmp_path, np.int64(2), config=config)], **run)
    plain = {"rate": 0.5, "sizes": [0, 1], "on": True, "scale": 1.0}
    resumed = nj.callbacks.Checkpoint(tmp_path, np.int64(2), resume=np.int64(2), config=plain)
    assert fit(callbacks=[resumed], **run).steps_taken == 4


# names


def monitor(name):
    return nj.monitors.Monitor(name, lambda params, x: (), lambda state, params, x: (state, jnp.zeros(())))


SIGMA = nj.monitors.SigmaMinMonitor
TAKEN_TWICE = {
    "two of a kind": ({"monitors": [SIGMA(nj.jacobian.pairwise)] * 2}, "sigma_min"),
    "metric and monitor": ({"monitors": [monitor("m")], "metrics": {"m": lambda f, y: 1.0}}, "m"),
    "a second accuracy": ({"data": (X32, np.sign(Y32)), "metrics": {"accuracy": lambda f, y: 1.0}}, "accuracy"),
    "of the test set": ({"monitors": [monitor("test_m")], "metrics": {"m": lambda f, y: 1.0}}, "test_m"),
    "a metric as loss": ({"metrics": {"loss": lambda f, y: 1.0}}, "loss"),
} | {
    name: ({"monitors": [monitor(name)]}, name)
    for name in ("step", "loss", "accuracy", "distance", "cone_active", "test_loss", "test_accuracy")
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN_TWICE)
def test_a_name_stands_for_one_entry_of_the_history(name):
    options, twice = TAKEN_TWICE[name]
    with pytest.raises(
        ValueError, match=f"'{twice}'.* would name more than one entry.*SigmaMinMonitor.*name="
    ):
        fit(**options)


def test_monitors_and_metrics_with_names_of_their_own_are_recorded():
    result = fit(
        monitors=[monitor("a"), monitor("b")],
        metrics={"largest": lambda f, y: jnp.max(jnp.abs(f)), "one": lambda f, y: 1.0},
        evaluation=(2 * X32, Y32),
    )
    names = {"a", "b", "largest", "one", "test_largest", "test_one", "loss", "test_loss", "step"}
    assert set(result.history) == names
    for name, x in (("largest", X32), ("test_largest", 2 * X32)):
        assert result.history[name][-1] == pytest.approx(float(abs(NET(result.params, x)).max()), rel=1e-5)
    assert SIGMA(nj.jacobian.pairwise, name="other").name == "other"


# what is printed and written


def test_results_print_in_one_line():
    assert repr(fit()) == f"FitResult(steps=2, loss={fit().history['loss'][-1]:.3g})"
    rates = {"rate": [0.01, 0.02]}
    swept = nj.sweep(NET, lambda rate: (P, optax.sgd(rate)), (X32, Y32), grid=rates, steps=2)
    low, high = sorted(swept.history["loss"][:, -1])
    assert repr(swept) == f"FitResult(runs=(2,), steps=2, loss={low:.3g}…{high:.3g})"
    assert "diverged=True" in repr(fit(tx=optax.sgd(1e6), steps=50))


def test_paths_of_the_home_folder_and_nan_as_null(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    nan = nj.monitors.Monitor("bad", lambda p, x: (), lambda s, p, x: (s, jnp.full((), jnp.nan)))
    callbacks = [nj.callbacks.Record("~/history.jsonl"), nj.callbacks.Checkpoint("~/saved")]
    fit(callbacks=callbacks, monitors=[nan])
    assert nj.checkpoints.steps("~/saved")[-1] == 2
    lines = (tmp_path / "history.jsonl").read_text()
    assert '"bad": null' in lines
    assert "NaN" not in lines


def test_resuming_from_nothing_is_said(tmp_path, capsys):
    fit(callbacks=[nj.callbacks.Checkpoint(tmp_path / "new", resume=True)])
    assert f"nothing to resume in {tmp_path / 'new'}: the run begins at step 0" in capsys.readouterr().err


@pytest.mark.parametrize("wrap", [nj.constraints.ball_coordinates, nj.constraints.regime])
def test_an_optimizer_that_was_not_called_is_said_by_what_wraps_it(wrap, unchecked):
    with pytest.raises(TypeError, match=r"tx is adam itself; .*call it"):
        wrap(optax.adam, 0.1)


def test_shapes_cannot_be_an_axis_of_a_sweep(unchecked):
    def setup(width):
        return nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=width), SGD

    with pytest.raises(TypeError, match="width is traced; expected an integer"):
        nj.sweep(NET, setup, (X32, Y32), grid={"width": [8]}, steps=1)


# what measures, and what makes the runs of a sweep


def watch(value, name="own"):
    return nj.monitors.Monitor(name, lambda p, x: (), lambda s, p, x: (s, value(p)))


def sweep(setup=lambda rate: (P, optax.sgd(rate)), **options):
    return nj.sweep(NET, setup, (X32, Y32), **({"grid": {"rate": [0.01]}, "steps": 2} | options))


def sam_around_regime():
    with jax.numpy_dtype_promotion("standard"):  # sam adds the booleans of the state to numbers
        fit(tx=optax.contrib.sam(nj.constraints.regime(SGD, 0.1), SGD))


UNFIT = {
    "an array of a monitor": (
        lambda: fit(monitors=[watch(lambda p: p["w"][0])]),
        r"the monitor 'own' is float32\[8\]; expected one real number",
    ),
    "words of a monitor": (lambda: fit(monitors=[watch(lambda p: "high")]), "the monitor 'own' is a str"),
    "a metric's number as name": (
        lambda: fit(metrics={3: lambda f, y: f.mean()}),
        "the name 3 of a monitor or",
    ),
    "a loss with an if": (
        lambda: fit(loss=lambda f, y: f.sum() if f.sum() > 0 else y.sum()),
        "jnp.where for `if`",
    ),
    "labels as booleans": (
        lambda: fit(params=P2, data=(X32, LABELS > 0), loss="cross_entropy"),
        r"expects integer labels, one a sample: pass y.astype\(int\)",
    ),
    "a state of another kind after sam": (
        sam_around_regime,
        r"goes inside: nj.constraints.regime\(wrapper, radius\)",
    ),
    "a list as grid": (lambda: sweep(grid=[0.1]), "grid is a list; expected values by name"),
    "words on an axis": (lambda: sweep(grid={"rate": ["low"]}), "grid axis 'rate' is an array of dtype <U3"),
    "a setup of params": (
        lambda: sweep(lambda rate: P),
        r"setup returned a dict; expected a pair \(params, tx\)",
    ),
    "a traced number": (
        lambda: jax.jit(lambda n: fit(steps=n))(2),
        "fit looks at values and cannot be traced",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_measures_or_sweeps_wrongly_is_said(name, unchecked):
    call, message = UNFIT[name]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_numbers_of_python_are_monitored():
    assert fit(monitors=[watch(lambda p: 0.5)]).history["own"].tolist() == [0.5] * 3


def test_tables_of_data_frame_libraries_are_taken():
    class Column:  # a Series: it has a dtype and a shape, and its class is of the library
        __module__ = "pandas.core.series"
        dtype, shape = np.dtype("float32"), (8, 1)

        def __array__(self, dtype=None, copy=None):
            return Y32

    np.testing.assert_array_equal(fit(data=(X32, Column())).params["w"], fit().params["w"])


# nothing that was there is lost, nothing is left where nothing was done


def test_records_of_another_run_are_not_replaced(tmp_path):
    record = nj.callbacks.Record(tmp_path / "history.jsonl")
    fit(callbacks=[record, nj.callbacks.Checkpoint(tmp_path / "saved")])
    before = (tmp_path / "history.jsonl").read_text()
    with pytest.raises(FileExistsError, match="another run's records already: choose another file"):
        fit(callbacks=[record])
    assert (tmp_path / "history.jsonl").read_text() == before
    fit(callbacks=[record, nj.callbacks.Checkpoint(tmp_path / "saved", resume=np.True_)])
    assert (tmp_path / "history.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("options", "resume"), [({"data": (X32, Y32[:3])}, False), ({}, 7)], ids=["bad data", "no such step"]
)
def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, options, resume):
    with pytest.raises(ValueError, match=r"expected one row of y a sample|holds no checkpoint of step 7"):
        fit(callbacks=[nj.callbacks.Checkpoint(tmp_path / "new", resume=resume)], **options)
    assert not (tmp_path / "new").exists()
