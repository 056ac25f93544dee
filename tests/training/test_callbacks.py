"""Callbacks: told between chunks, they stop, keep and record a run without changing its numbers."""

import inspect
import json

import jax
import jax.numpy as jnp
import killable
import numpy as np
import optax
import pytest
from optimizers import adam

import narrow_jax as nj
from narrow_jax import callbacks

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)
Y = np.sign(X[:, :1] + 0.5 * RNG.normal(size=(30, 1))).astype(np.float32)
START = nj.initializers.mirrored_lecun(jax.random.key(0), inputs=4, width=8)


def fit(watchers=(), tx=None, **options):
    data = options.pop("data", (X[:20], Y[:20]))
    options = {"steps": 60, "every": 1, "evaluation": (X[20:], Y[20:])} | options
    tx = adam(0.05) if tx is None else tx
    return nj.fit(nj.models.pairwise_apply, START, tx, data, callbacks=list(watchers), **options)


class Seen(callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.started, self.steps, self.ended = [], [], []

    def start(self, run):
        self.started.append((run.steps, run.every, run.resumes, len(run.history)))

    def record(self, told):
        assert told.history["step"][-1] == told.step
        assert [line["step"] for line in told.lines()] == told.records["step"].tolist()
        self.steps.append(told.step)

    def end(self, result):
        self.ended.append(result)


def test_each_is_told_of_start_chunks_and_end():
    seen = Seen()
    result = fit([seen])
    assert seen.started == [(60, 1, False, 0)]
    assert seen.steps[-1] == 60
    assert seen.steps == sorted(set(seen.steps))
    assert seen.ended == [result]


def test_numbers_do_not_depend_on_who_watches():
    plain, watched = fit(), fit([Seen(), callbacks.Best("loss"), callbacks.Progress(False)])
    np.testing.assert_array_equal(plain.history["loss"], watched.history["loss"])
    np.testing.assert_array_equal(plain.params["w"], watched.params["w"])


def test_stopping_early_is_by_the_record(tmp_path):
    whole = fit(steps=400)
    losses = whole.history["test_loss"]
    best = int(np.argmin(losses))
    assert best < 200  # it gets worse: there is something to stop
    seen = Seen()
    result = fit([callbacks.EarlyStopping("test_loss", patience=15), seen], steps=400)
    first = next(i for i in range(len(losses)) if losses[: i + 1].argmin() <= i - 15)
    assert first <= result.steps_taken <= first + 1  # it looks after every second record
    assert not result.diverged
    np.testing.assert_array_equal(result.history["loss"], whole.history["loss"][: result.steps_taken + 1])
    assert seen.ended == [result]


def test_accuracies_are_to_rise_and_small_gains_may_not_count():
    assert callbacks.EarlyStopping("test_accuracy").mode == "max"
    result = fit([callbacks.EarlyStopping("loss", patience=3, min_delta=10.0)], steps=100)
    assert result.steps_taken <= 5
    assert fit([callbacks.EarlyStopping("loss", patience=3)], tx=optax.sgd(1e-3), steps=20).steps_taken == 20


def test_best_weights_are_those_of_their_step():
    best = callbacks.Best("test_loss")
    result = fit([best], steps=400)
    assert best.step % 2 == 1  # the second of each two records, of which the first is at step 0
    losses = result.history["test_loss"]
    assert best.value == losses[best.step] == losses[1::2].min()
    there = fit(steps=best.step, tx=adam(0.05))
    np.testing.assert_array_equal(best.model.params["w"], there.params["w"])
    assert best.model.apply_fn is result.model.apply_fn
    assert not np.array_equal(best.model.params["w"], result.params["w"])


def test_tensorboard_files_are_read_by_its_own_reader(tmp_path):
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = fit([callbacks.TensorBoard(tmp_path)])
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(result.history) - {"step"}
    scalars = events.Scalars("test_loss")
    assert [event.step for event in scalars] == result.history["step"].tolist()
    np.testing.assert_array_equal(
        np.array([event.value for event in scalars], np.float32), result.history["test_loss"]
    )


class Raises(callbacks.Callback):
    def __init__(self, method, error=ValueError):
        self.method, self.error = method, error

    def record(self, told):
        if self.method == "record" and told.step > 20:
            raise self.error("no space")

    def end(self, result):
        if self.method == "end":
            raise self.error("no space")


@pytest.mark.parametrize("method", ["record", "end"])
def test_one_that_raises_loses_nothing(method, tmp_path):
    record, seen = callbacks.Record(tmp_path / "history.jsonl"), Seen()
    saved = callbacks.Checkpoint(tmp_path / "saved")
    with pytest.raises(
        callbacks.CallbackError, match=rf"^Raises.{method} raised ValueError: no space"
    ) as caught:
        fit([Raises(method), record, saved, seen])
    result = caught.value.result
    assert isinstance(caught.value.__cause__, ValueError)
    assert seen.ended == [result]
    assert nj.checkpoints.steps(tmp_path / "saved")[-1] == result.steps_taken == seen.steps[-1]
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == result.steps_taken
    np.testing.assert_array_equal(result.params["w"], fit(steps=result.steps_taken).params["w"])
    whole = fit([callbacks.Checkpoint(tmp_path / "saved", resume=True)])
    np.testing.assert_array_equal(whole.params["w"], fit().params["w"])


def test_ctrl_c_in_one_of_them_stays_ctrl_c():
    seen = Seen()
    with pytest.raises(KeyboardInterrupt, match="no space"):
        fit([Raises("record", KeyboardInterrupt), seen])
    assert seen.ended[0].steps_taken == seen.steps[-1]


def test_an_error_before_the_first_step_is_itself_and_ends_those_that_began(tmp_path):
    class Refuses(callbacks.Callback):
        def start(self, run):
            raise OSError("read-only")

    seen = Seen()
    with pytest.raises(OSError, match="read-only"):
        fit([seen, Refuses()])
    assert seen.ended == [None]


def test_checkpoints_keep_as_many_as_they_are_told(tmp_path):
    killable.run()
    nj.fit(
        killable.apply_fn,
        killable.START,
        killable.TX,
        (killable.X, killable.Y),
        steps=20,
        every=2,
        model_state=jnp.zeros(5),
        callbacks=[callbacks.Checkpoint(tmp_path, keep=5)],
    )
    assert len(nj.checkpoints.steps(tmp_path)) == 5


BAD = {
    "no list": (callbacks.Progress(), "callbacks is a Progress; expected a list of callbacks"),
    "a class": ([callbacks.Record], "callbacks holds Record; expected objects with start, record and end"),
    "a function": ([print], "callbacks holds print; expected objects"),
    "a word": (["history.jsonl"], r"callbacks holds a str; expected objects .*nj\.callbacks\.Record"),
}


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD.keys())
@pytest.mark.usefixtures("unchecked")
def test_wrong_types_are_named(given, message):
    with pytest.raises(TypeError, match=message):
        nj.fit(nj.models.pairwise_apply, START, optax.sgd(0.1), (X, Y), steps=2, callbacks=given)


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="patience is 0"):
        callbacks.EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="min_delta is -1"):
        callbacks.EarlyStopping(min_delta=-1)
    with pytest.raises(ValueError, match="unknown mode 'least'"):
        callbacks.Best(mode="least")
    with pytest.raises(ValueError, match="more than one Checkpoint"):
        fit([callbacks.Checkpoint(tmp_path / "a"), callbacks.Checkpoint(tmp_path / "b")])
    message = r"unknown entry of the history 'test_los': did you mean 'test_loss'"
    with pytest.raises(callbacks.CallbackError, match=message):
        fit([callbacks.EarlyStopping("test_los")])
    with pytest.raises(TypeError, match=r"unknown option 'progres'.*Expected one of loss"):
        fit(progres=True)


def test_fit_has_few_parameters():
    assert len(inspect.signature(nj.fit).parameters) <= 12


class Odd(callbacks.Callback):
    """One that returns what it was made with."""

    def __init__(self, start=None, record=None):
        self.returned, self.ended = (start, record), False

    def start(self, run):
        return self.returned[0]

    def record(self, told):
        return self.returned[1]

    def end(self, result):
        self.ended = True


@pytest.mark.usefixtures("unchecked")
def test_what_a_callback_returns_is_looked_at():
    odd = Odd(start="go")
    with pytest.raises(TypeError, match=r"Odd.start returned a str; expected the run, changed by _replace"):
        fit([odd])
    assert odd.ended
    for wrong in ("stop", {"stop": True}, 3):
        with pytest.raises(
            callbacks.CallbackError, match=r"it returned a \w+; expected whether the run"
        ) as caught:
            fit([Odd(record=wrong)])
        assert caught.value.result.steps_taken > 0
    assert fit([Odd(record=np.bool_(True))]).steps_taken < fit([Odd(record=False)]).steps_taken


ODD_OPTIONS = {
    "folder": (lambda: callbacks.Checkpoint(3), TypeError, r"folder is a int \(3\); expected a path"),
    "file": (lambda: callbacks.Record(None), TypeError, r"path is a NoneType \(None\); expected a path"),
    "no folder": (
        lambda: fit([callbacks.Record("/proc/none/r.jsonl")]),
        OSError,
        r"record /proc/none/r.jsonl cannot be written .*make the folder",
    ),
    "events": (
        lambda: fit([callbacks.TensorBoard("/proc/none")]),
        OSError,
        r"TensorBoard cannot write to /proc/none .*choose another folder",
    ),
    "entry": (lambda: callbacks.EarlyStopping(3), TypeError, "entry is a int; expected the name of an entry"),
    "delta": (
        lambda: callbacks.EarlyStopping(min_delta="x"),
        ValueError,
        "min_delta is 'x'; expected a finite",
    ),
    "metric": (lambda: fit(metrics={"a": "b"}), TypeError, r"the metric 'a' is .* expected a function"),
    "steps": (
        lambda: fit(steps=2**31),
        ValueError,
        "steps is 2147483648; expected an integer ≥ 1 and ≤ 2147483647",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), ODD_OPTIONS.values(), ids=ODD_OPTIONS.keys())
@pytest.mark.usefixtures("unchecked")
def test_odd_options_are_one_sentence(make, error, message):
    with pytest.raises(error, match=message):
        make()


# targets of any form, and weights


def own(outputs, y):
    return jnp.sum(y["weight"][:, None] * (outputs - y["target"]) ** 2) / 2


def test_targets_may_be_any_tree_under_a_loss_of_ones_own():
    weights = np.linspace(0, 1, 20, dtype=np.float32)
    y = {"target": Y[:20], "weight": weights}
    options = {"tx": adam(0.05), "evaluation": None, "steps": 10}
    result = fit(data=(X[:20], y), loss=own, **options)
    same = fit(data=(X[:20], (Y[:20], weights)), loss=nj.losses.weighted("squared"), **options)
    np.testing.assert_array_equal(result.history["loss"], same.history["loss"])
    ones = fit(
        data=(X[:20], (Y[:20], np.ones(20, np.float32))), loss=nj.losses.weighted("squared"), **options
    )
    np.testing.assert_allclose(ones.params["w"], fit(**options).params["w"], rtol=1e-6)
    batches = {"batch_size": 5, "key": jax.random.key(1)}
    minibatches = fit(data=(X[:20], y), loss=own, **options | batches)
    assert minibatches.history["loss"][-1] < minibatches.history["loss"][0]


@pytest.mark.parametrize("loss", ["squared", "mean_squared", "cross_entropy"])
def test_weight_0_leaves_a_sample_out_and_2_counts_it_twice(loss):
    outputs = RNG.normal(size=(5, 3)).astype(np.float32)
    y = np.arange(5) % 3 if loss == "cross_entropy" else RNG.normal(size=(5, 3)).astype(np.float32)
    found = nj.losses.weighted(loss)(outputs, (y, np.array([0, 1, 1, 2, 0], np.float32)))
    rows = [1, 2, 3, 3]
    np.testing.assert_allclose(found, nj.losses.get(loss)(outputs[rows], y[rows]), rtol=1e-6)


BAD_WEIGHTS = {
    "negative": (-np.ones(20, np.float32), "weights go from -1.0 to -1.0; expected numbers ≥ 0"),
    "all 0": (np.zeros(20, np.float32), "not all 0"),
    "integers": (
        np.ones(20, int),
        r"weights are int32\[20\]; expected one floating number a sample, \(20,\)",
    ),
    "other shape": (np.ones((20, 1), np.float32), r"weights are float32\[20, 1\]"),
    "not finite": (np.full(20, np.nan, np.float32), r"y\[1\] has 20 non-finite entries"),
    "too few": (np.ones(3, np.float32), "expected one row of y a sample"),
}


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        fit(data=(X[:20], (Y[:20], weights)), loss=nj.losses.weighted("squared"), evaluation=None)


def test_a_pair_is_asked_for():
    with pytest.raises(TypeError, match=r"expects a pair: pass data=\(x, \(targets, weights\)\)"):
        fit(loss=nj.losses.weighted("squared"))
    with pytest.raises(TypeError, match="y is a tuple of 2; expected one array"):
        fit(data=(X[:20], (Y[:20], Y[:20])))
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        nj.losses.weighted("hinge")


def test_a_resumed_run_compares_targets_of_any_form(tmp_path):
    y = {"target": Y[:20], "weight": np.ones(20, np.float32)}
    options = {"loss": own, "evaluation": None}
    fit([callbacks.Checkpoint(tmp_path)], data=(X[:20], y), **options)
    other = y | {"weight": 2 * y["weight"]}
    with pytest.raises(nj.checkpoints.CheckpointError, match="data set y: saved"):
        fit([callbacks.Checkpoint(tmp_path, resume=True)], data=(X[:20], other), **options)
