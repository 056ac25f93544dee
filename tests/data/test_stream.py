"""Streams: the batches of data on the device, in the same order, from any step."""

import functools
import inspect
import itertools
import sys
import threading

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orders import epoch_order

import narrow_jax as nj

N, SIZE = 11, 4  # two steps an epoch, three samples wait
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 3)).astype(np.float32), rng.integers(2, size=N).astype(np.int32)


def taken(stream, steps, first=0):
    return list(itertools.islice(stream.batches(KEY, SIZE, first), steps))


def test_batches_follow_the_documented_order(data):
    x, y = data
    for step, (x_batch, y_batch) in enumerate(taken(nj.data.Stream(x, y), 7)):
        order = epoch_order(KEY, step // 2, N)
        rows = order[step % 2 * SIZE :][:SIZE]
        np.testing.assert_array_equal(x_batch, x[rows])
        np.testing.assert_array_equal(y_batch, y[rows])


@pytest.mark.parametrize("first", [1, 2, 5])
def test_restart_gives_the_rest(data, first):
    whole, rest = taken(nj.data.Stream(*data), 7), taken(nj.data.Stream(*data), 7 - first, first)
    for one, other in zip(whole[first:], rest, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_sources_are_alike(data, tmp_path):
    x, y = data
    np.save(tmp_path / "x.npy", x)
    sources = {
        "memory map": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "list": list(x),
        "grain": grain.MapDataset.source(range(N)).map(lambda row: x[row]),
    }
    expected = taken(nj.data.Stream(x, y), 3)
    for name, source in sources.items():
        for one, other in zip(expected, taken(nj.data.Stream(source, y), 3), strict=True):
            np.testing.assert_array_equal(one[0], other[0], err_msg=name)


def test_reads_ahead_in_other_threads_and_no_further(data):
    x, y = data
    reads, arrived = [], threading.Event()

    class Counting:
        def __len__(self):
            return N

        def __getitem__(self, row):
            reads.append(threading.get_ident())
            if len(reads) == 4 * SIZE:
                arrived.set()
            return x[row]

    batches = nj.data.Stream(Counting(), y, ahead=3).batches(KEY, SIZE)
    next(batches)
    assert arrived.wait(20)  # one batch is used and three are read
    assert threading.get_ident() not in reads
    assert len(reads) <= 6 * SIZE


@pytest.fixture(scope="module")
def problem(data):
    params = nj.initializers.mirrored_lecun(jax.random.key(1), inputs=3, width=4, outputs=2)
    tx = nj.constraints.regime(optax.sgd(0.2, momentum=0.9), radius=0.3)
    return params, tx


FIT = {"steps": 7, "every": 3, "loss": "cross_entropy", "batch_size": SIZE, "key": KEY}


def test_fit_equals_data_on_the_device(data, problem):
    """Rows to measure on: all, so that the histories can be compared too."""
    params, tx = problem
    resident, streamed = (
        nj.fit(nj.models.pairwise_apply, params, tx, rows, evaluation=data, **FIT)
        for rows in (data, nj.data.Stream(*data))
    )
    assert resident.steps_taken == streamed.steps_taken == 7
    assert list(resident.history) == list(streamed.history)
    for name, values in resident.history.items():
        np.testing.assert_allclose(streamed.history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for name in ("w", "v"):
        np.testing.assert_allclose(streamed.params[name], resident.params[name], rtol=1e-5, atol=1e-6)


def test_fit_measures_on_the_sample(data, problem):
    params, tx = problem
    x, y = data
    stream = nj.data.Stream(x, y, sample=4)
    assert stream.rows.tolist() == [0, 2, 5, 8]  # ⌊11 i/4⌋
    result = nj.fit(nj.models.pairwise_apply, params, tx, stream, **FIT)
    outputs = nj.models.pairwise_apply(result.params, x[stream.rows])
    assert result.history["loss"][-1] == pytest.approx(
        float(nj.losses.cross_entropy(outputs, y[stream.rows]))
    )


def test_divergence_names_the_step(data, problem):
    params, _ = problem
    x, _ = data
    y = x[:, :2] * np.float32(1e3)
    wild = optax.sgd(1e6)
    options = FIT | {"loss": "squared", "steps": 30, "every": 10}
    resident, streamed = (
        nj.fit(nj.models.pairwise_apply, params, wild, rows, **options)
        for rows in ((x, y), nj.data.Stream(x, y))
    )
    assert streamed.diverged
    assert 0 < streamed.steps_taken == resident.steps_taken < 30
    assert np.isfinite(streamed.params["w"]).all()


class Broken:
    """A source whose row 3 cannot be read."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        if row == 3:
            raise ValueError("row 3 cannot be decoded")
        return np.zeros(3, np.float32)


def test_error_of_a_reader_arrives(data):
    with pytest.raises(ValueError, match="row 3 cannot be decoded"):
        taken(nj.data.Stream(Broken(), data[1]), 8)


BAD = {
    "rows": (lambda x, y: nj.data.Stream(x, y[:-1]), "x has 11 samples and y has shape"),
    "nothing": (lambda x, y: nj.data.Stream(x[:0], y[:0]), "x has 0 samples"),
    "targets": (lambda x, y: nj.data.Stream(x, np.full(N, np.inf)), "y has 11 non-finite"),
    "sample": (lambda x, y: nj.data.Stream(x, y, sample=0), "sample is 0"),
    "ahead": (lambda x, y: nj.data.Stream(x, y, ahead=0), "ahead is 0"),
    "batch": (
        lambda x, y: nj.data.Stream(x, y).batches(KEY, 12),
        "batch_size is 12 and there are 11 samples; use at most 11",
    ),
    "first": (lambda x, y: nj.data.Stream(x, y).batches(KEY, 2, first=-1), "first is -1"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_stream(data, call, message):
    with pytest.raises(ValueError, match=message):
        call(*data)


def test_bad_fit(data, problem):
    params, tx = problem
    x, y = data
    label = np.where(np.arange(N) == 10, 2, y).astype(np.int32)  # outside the sample
    with pytest.raises(ValueError, match="labels go from 0 to 2; expected 0 to 1"):
        nj.fit(nj.models.pairwise_apply, params, tx, nj.data.Stream(x, label, sample=2), **FIT)
    with pytest.raises(ValueError, match="a stream is read batch by batch: pass batch_size="):
        nj.fit(nj.models.pairwise_apply, params, tx, nj.data.Stream(x, y), **(FIT | {"batch_size": None}))


def test_sweep_wants_data_on_the_device(data, problem):
    options = {name: value for name, value in FIT.items() if name != "steps"}
    with pytest.raises(TypeError, match=r"data is a Stream; expected \(x, y\)"):
        # past the annotation, which refuses a stream too where annotations are checked
        inspect.unwrap(nj.sweep)(
            nj.models.pairwise_apply,
            lambda seed: problem,
            nj.data.Stream(*data),
            grid={"seed": [0]},
            steps=1,
            **options,
        )


def test_without_grain_it_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"a stream needs packages .*pip install 'narrow_jax\[data\]'"):
        nj.data.Stream(*data).batches(KEY, 2)


def test_float64_in_the_caller_changes_no_order(data):
    """The orders are drawn in Grain's threads, which do not see the caller's local settings."""
    expected = taken(nj.data.Stream(*data), 3)
    with jax.enable_x64(True):
        other = taken(nj.data.Stream(*data), 3)
        order = epoch_order(KEY, 1, N)
    for one, two in zip(expected, other, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(expected[2][0], data[0][order[:SIZE]])


# targets in a tree, under a loss of one's own


def masked(outputs, y):
    """Half of the squares at the targets that are there."""
    missed = jnp.where(y["there"], outputs - y["target"], 0.0)
    return jnp.sum(missed**2) / 2


@pytest.fixture(scope="module")
def gaps():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(40, 2)).astype(np.float32)
    return x, y, rng.random((40, 2)) < 0.7


def masked_fit(x, y, there, loss=masked, stream=True, **options):
    given = {"target": y, "there": there}
    data = nj.data.Stream(x, given, sample=40) if stream else (x, given)
    params = nj.initializers.lecun(jax.random.key(0), inputs=3, width=6, outputs=2)
    options = {"steps": 25, "every": 5, "batch_size": 8, "key": KEY, "callbacks": []} | options
    return nj.fit(nj.models.standard_apply, params, optax.sgd(0.02), data, loss=loss, **options)


def test_masked_targets_of_a_stream_are_those_in_memory(gaps):
    result, same = masked_fit(*gaps), masked_fit(*gaps, stream=False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), result.params, same.params
    )
    np.testing.assert_allclose(result.history["loss"], same.history["loss"], rtol=1e-5)
    assert result.history["loss"][-1] < result.history["loss"][0]


def test_what_the_mask_hides_is_not_learned(gaps):
    x, y, there = gaps
    other = np.where(there, y, 1e3).astype(np.float32)
    result, same = masked_fit(x, y, there), masked_fit(x, other, there)
    jax.tree.map(np.testing.assert_array_equal, result.params, same.params)
    seen = masked_fit(x, other, np.ones_like(there))  # without a mask it is
    assert not np.allclose(result.params["w"], seen.params["w"], atol=1e-2)


def test_weights_of_a_stream(gaps):
    x, y, there = gaps
    weights = there[:, 0].astype(np.float32)
    options = {
        "steps": 5,
        "batch_size": 40,
        "key": KEY,
        "loss": nj.losses.weighted("squared"),
        "callbacks": [],
    }
    params = nj.initializers.lecun(jax.random.key(0), inputs=3, width=6, outputs=2)
    run = functools.partial(nj.fit, nj.models.standard_apply, params, optax.sgd(0.02), **options)
    streamed, held = run(nj.data.Stream(x, (y, weights), sample=40)), run((x, (y, weights)))
    np.testing.assert_allclose(streamed.history["loss"], held.history["loss"], rtol=1e-5)


def test_a_stream_with_a_tree_goes_on_bit_for_bit_and_compares_it(gaps, tmp_path):
    pytest.importorskip("orbax.checkpoint")
    x, y, there = gaps
    whole = masked_fit(*gaps)
    saving = nj.callbacks.Checkpoint(tmp_path, every=5)
    masked_fit(*gaps, callbacks=[saving])
    middle = nj.checkpoints.steps(tmp_path)[0]
    assert middle < 25
    resumed = masked_fit(*gaps, callbacks=[nj.callbacks.Checkpoint(tmp_path, every=5, resume=middle)])
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    with pytest.raises(nj.checkpoints.CheckpointError, match="stream y: saved"):
        masked_fit(x, y + 1, there, callbacks=[nj.callbacks.Checkpoint(tmp_path, every=5, resume=True)])


BAD_TREES = {
    "rows": ({"target": np.ones(40), "there": np.ones(39)}, r"y\[there\] has shape \(39,\)"),
    "not finite": ((np.ones(40), np.full(40, np.nan)), r"y\[1\] has 40 non-finite entries"),
}


@pytest.mark.parametrize(("y", "message"), BAD_TREES.values(), ids=BAD_TREES.keys())
def test_bad_trees_are_refused_before_anything_is_read(gaps, y, message):
    with pytest.raises(ValueError, match=message):
        nj.data.Stream(gaps[0], y)


def test_a_stock_loss_takes_one_array(gaps):
    with pytest.raises(TypeError, match="y is a dict of 2; expected one array"):
        masked_fit(*gaps, loss="squared")
