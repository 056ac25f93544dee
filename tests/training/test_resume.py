"""`fit` with checkpoints: a run that was stopped ends bit for bit as one that was not."""

import functools
import json
import multiprocessing
import os
import shutil
import signal
import time

import chex
import jax
import killable
import numpy as np
import optax
import pytest
from killable import EVERY, START, STEPS, run

import narrow_jax as nj
from narrow_jax import checkpoints
from narrow_jax.checkpoints import CheckpointError


@pytest.fixture(scope="module")
def whole():
    """The run that nothing stops and nothing saves."""
    return run()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run with all its checkpoints, to read only."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it without the last checkpoint: a run that was stopped on the way."""
    copy = shutil.copytree(finished, tmp_path / "checkpoints")
    shutil.rmtree(copy / f"step-{STEPS:08d}")
    return copy


def bits(leaf):
    """The leaf's bytes and type: equal where leaves are the same to the bit."""
    array = np.asarray(leaf)
    return array.tobytes(), array.dtype, array.shape


def assert_same(result, whole):
    """Every number of the two runs is the same, to the bit, and every name."""
    chex.assert_trees_all_equal_structs(result, whole)
    assert list(map(bits, jax.tree.leaves(result))) == list(map(bits, jax.tree.leaves(whole)))
    assert list(result.history) == list(whole.history)


@pytest.mark.parametrize(("every_saved", "chunk"), [(2, 2), (1000, 3)])  # 61 records: 3 are a 25th
def test_numbers_do_not_depend_on_where_chunks_are_cut(tmp_path, monkeypatch, every_saved, chunk):
    cuts = []
    monkeypatch.setattr(checkpoints, "save", lambda folder, step, *rest, **keep: cuts.append(step))
    options = {"steps": 60, "every": 1}
    whole = run(**options)
    assert_same(run(tmp_path, every_saved=every_saved, **options), whole)
    assert cuts == [*range(chunk - 1, 60, chunk), 60]


def test_checkpoints_are_the_newest_three(finished):
    assert checkpoints.steps(finished) == [18, 22, STEPS]


def test_saving_does_not_change_the_run(whole, tmp_path):
    assert_same(run(tmp_path), whole)


@pytest.mark.parametrize("step", [True, 18])
def test_resumed_run_equals_the_whole_one(whole, folder, step):
    assert_same(run(folder, resume=step), whole)


def jitter(key, x, scale=0.1):
    """Augmentation whose numbers depend on the key of the step."""
    return x + scale * jax.random.normal(key, x.shape)


OTHER_KINDS = {
    "stream": lambda: {"data": nj.data.Stream(killable.X, killable.Y, sample=5)},
    "augmented and evaluated": lambda: {
        "augment": functools.partial(jitter, scale=0.2),
        "evaluation": (-killable.X, killable.Y),
    },
}


@pytest.mark.parametrize("options", OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_other_kinds_of_runs_resume_to_the_bit_too(tmp_path, options):
    whole = run(tmp_path, **options())
    shutil.rmtree(tmp_path / f"step-{STEPS:08d}")
    assert_same(run(tmp_path, resume=18, **options()), whole)


def test_finished_run_is_returned_as_it_ended(whole, finished):
    assert_same(run(finished, resume=True), whole)


def test_nothing_there_yet_begins_at_the_start(whole, tmp_path):
    assert_same(run(tmp_path / "new", resume=True), whole)


def test_record_has_the_lines_before_the_stop_too(whole, folder, tmp_path):
    run(tmp_path / "other", record=tmp_path / "whole.jsonl")
    run(folder, resume=True, record=tmp_path / "resumed.jsonl")
    assert (tmp_path / "resumed.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    lines = [json.loads(line) for line in (tmp_path / "resumed.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(0, STEPS, EVERY), STEPS]


def test_run_that_diverged_diverges_again(tmp_path):
    def diverge(**options):
        tx = optax.sgd(1e3)
        saved = [nj.callbacks.Checkpoint(tmp_path, **options)]
        data = killable.X, killable.Y
        return nj.fit(nj.models.pairwise_apply, START, tx, data, steps=200, callbacks=saved)

    first = diverge()
    assert first.diverged
    assert_same(diverge(resume=True), first)


def test_resuming_is_asked_for(folder):
    with pytest.raises(CheckpointError, match=r"holds checkpoints up to step 22: go on .*resume=True"):
        run(folder)
    assert checkpoints.steps(folder) == [18, 22]


def test_damaged_checkpoint_is_refused_and_the_one_before_offered(whole, folder):
    manifest = folder / "step-00000022" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("loss", "lass"))
    with pytest.raises(
        CheckpointError, match=r"step 22 .*damaged.*newest good step is 18 .*Checkpoint: resume=18"
    ):
        run(folder, resume=True)
    assert_same(run(folder, resume=18), whole)
    assert checkpoints.steps(folder)[-1] == STEPS


OTHER_RUNS = {
    "steps": ({"steps": 50}, "steps: saved 23, given 50"),
    "every": ({"every": 1}, "every: saved 2, given 1"),
    "batch size": ({"batch_size": 5}, "batch_size: saved 4, given 5"),
    "loss": ({"loss": "mean_squared"}, "loss: saved squared, given mean_squared"),
    "key": ({"key": jax.random.key(9)}, r"key: saved \[0, 2\], given \[0, 9\]"),
    "start": (
        {"params": jax.tree.map(jax.numpy.negative, START)},
        "start: saved [0-9a-f]{64}, given [0-9a-f]{64}",
    ),
    "x": (
        {"data": (np.nextafter(killable.X, np.float32(9)), killable.Y)},
        r"other config or data set: data set x: saved \(12, 5\) float32 SHA-256 .*, given .* SHA-256",
    ),
    "y": ({"data": (killable.X, -killable.Y)}, r"data set: data set y: saved \(12, 1\) float32"),
    "evaluation": (
        {"evaluation": (killable.X, killable.Y)},
        r"evaluation x: saved nothing, given \(12, 5\) float32 SHA-256",
    ),
    "stream": ({"data": nj.data.Stream(killable.X, killable.Y)}, r"stream x: saved nothing, given \(12, 5\)"),
    "augment": (
        {"augment": functools.partial(jitter, scale=0.2)},
        r"augment: saved None, given jitter\(scale=0.2\)",
    ),
    "devices": ({"devices": jax.local_devices()[:1]}, "devices: saved None, given 1"),
    "config": ({"config": {"learning_rate": 0.1}}, "config learning_rate: saved nothing, given 0.1"),
    "optimizer": ({"tx": optax.sgd(0.1)}, "of another model or optimizer: opt_state"),
    "monitors": ({"monitors": ()}, r"monitors: saved \['records'\], given \[\]"),
}


@pytest.mark.parametrize(("options", "message"), OTHER_RUNS.values(), ids=OTHER_RUNS.keys())
def test_other_run_is_refused(finished, options, message):
    with pytest.raises(CheckpointError, match=f"{message}.*; the newest good step is 23"):
        run(finished, resume=True, **options)


class Files:
    """A source that can tell what it holds without reading it."""

    def __init__(self, x, version):
        self.x, self.version = x, version

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row]

    def fingerprint(self):
        return self.version


def changed(rows):
    x = killable.X.copy()
    x[rows] += 1
    return x


@pytest.mark.parametrize(
    ("saved", "given", "message"),
    [
        # row 1 is not among those that training is measured on
        (killable.X, changed(1), r"stream x: saved \(12, 5\) float32 SHA-256"),
        (list(killable.X), list(changed(0)), r"set: data set x: saved \(4, 5\) float32 SHA-256"),
        (
            Files(killable.X, "v1"),
            Files(changed(1), "v2"),
            "set: stream x: saved 12 samples, fingerprint v1, given 12 samples, fingerprint v2",
        ),
    ],
    ids=["array", "measured rows", "what the source says"],
)
def test_stream_of_other_samples_is_refused(tmp_path, saved, given, message):
    run(tmp_path, data=nj.data.Stream(saved, killable.Y, sample=4), steps=2)
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, data=nj.data.Stream(given, killable.Y, sample=4), steps=2, resume=True)


BAD_OPTIONS = {
    "no step between": ({"folder": "here", "every_saved": 0}, "every is 0; expected an integer ≥ 1"),
    "negative step": ({"folder": "here", "resume": -1}, "resume is -1"),
    "folder below a file": (
        {"folder": f"{__file__}/below"},
        "cannot be written to .*: .*choose a folder",
    ),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_config_is_tried_before_the_first_step(tmp_path):
    with pytest.raises(TypeError, match=r"config is to be saved as JSON: .*not JSON serializable"):
        run(tmp_path / "new", config={"optimizer": optax.sgd})
    assert not (tmp_path / "new").exists()


def press_ctrl_c(monkeypatch, times):
    """Press Ctrl-C while the first checkpoint is being saved."""
    own = checkpoints.save

    def save(*arguments, **options):
        if not checkpoints.steps(arguments[0]):
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return own(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save", save)


def test_ctrl_c_saves_and_leaves(whole, tmp_path, monkeypatch, capfd):
    press_ctrl_c(monkeypatch, times=1)
    with pytest.raises(KeyboardInterrupt, match=r"step 2 of 23 is saved in .*resume=True"):
        run(tmp_path)
    assert "Ctrl-C: saving after this chunk" in capfd.readouterr().err
    assert checkpoints.steps(tmp_path) == [2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same(run(tmp_path, resume=True), whole)


def test_second_ctrl_c_leaves_at_once(tmp_path, monkeypatch):
    press_ctrl_c(monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path)
    assert "left at once" in str(caught.value)
    assert checkpoints.steps(tmp_path) == []


def test_ctrl_c_of_an_application_stays_its_own(whole, tmp_path, monkeypatch):
    presses = []
    before = signal.signal(signal.SIGINT, lambda number, frame: presses.append(number))
    try:
        press_ctrl_c(monkeypatch, times=1)
        assert_same(run(tmp_path), whole)
    finally:
        signal.signal(signal.SIGINT, before)
    assert presses == [signal.SIGINT]


def test_killed_runs_end_as_the_whole_one(whole, tmp_path):
    """Three kills; ``python -m benchmarks.kill`` does more, of the command."""
    context = multiprocessing.get_context("forkserver")  # its server imports once for all
    context.set_forkserver_preload(["narrow_jax", "orbax.checkpoint"])
    rng = np.random.default_rng(0)
    newest = []
    for target in (2, 6, 14):  # by the progress, not by the clock: machines differ
        folder = tmp_path / str(target)
        arguments = (folder, jax.config.jax_compilation_cache_dir)
        process = context.Process(target=killable.run_alone, args=arguments)
        process.start()
        while process.is_alive() and (checkpoints.steps(folder) or [0])[-1] < target:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        newest.append(checkpoints.steps(folder)[-1])
        assert_same(run(folder, resume=True), whole)
    assert min(newest) < STEPS
