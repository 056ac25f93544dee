"""Experiments on images, in arrays and in files: what is read, what is refused, what a record goes on with."""

import functools
import importlib
import itertools
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import narrow_jax as nj
from experiments import (
    _image_sets,
    _run,
    narrow_all_images,
    narrow_fig5,
    narrow_random_labels,
    narrow_regime_ablation,
)

FIGURES = Path(__file__).parents[1] / "docs" / "figures"

RESTRICTED = ("--dataset", "restricted-imagenet", "--size", "tiny", "--radii", "10", "--epochs", "12")


def images(folder, cat=50, shape=(20, 24, 3)):
    """Bright dogs and dark cats, in the layout of ImageNet; returns the folder."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 4)):
        for wnid, level in (("n02085620", 200), ("n02123045", cat)):
            inside = folder / part / wnid
            inside.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(level - 40, level + 40, size=shape).astype(np.uint8)
                Image.fromarray(pixels).save(inside / f"{number}.png")
    return folder


def run(monkeypatch, *arguments):
    """Run the command; optax's own schedules promote."""
    monkeypatch.setattr(sys, "argv", ["narrow_fig5", *map(str, arguments)])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        narrow_fig5.main()


def test_images_of_files_are_streamed_and_learnt(tmp_path, monkeypatch):
    """All of the test set is right within a few epochs, inside the ball."""
    data = _image_sets.in_files(images(tmp_path / "images"), pixels=16)
    assert (data.samples, data.outputs, data.in_bytes) == (48, 9, True)
    assert (data.first.shape, data.first.dtype) == ((1, 16, 16, 3), np.float32)
    run(monkeypatch, *RESTRICTED, "--images", tmp_path / "images", "--out", tmp_path)
    regime, plain = json.loads((tmp_path / "summary.json").read_text())["cells"]
    assert (regime["radius"], plain["radius"]) == (10.0, None)
    assert regime["test_accuracy"] == plain["test_accuracy"] == 1.0
    assert regime["looks"][-1]["epoch"] == 12
    assert 0 < regime["distance"] <= 10 * (1 + 1e-6)


def test_fewer_images_of_files_are_of_all_classes(tmp_path):
    data = _image_sets.in_files(images(tmp_path), pixels=16, samples=6)
    assert np.bincount(data.train.y).tolist() == [3, 3]
    assert data.mark != _image_sets.in_files(tmp_path, pixels=16).mark


def test_another_folder_of_images_is_refused(tmp_path, monkeypatch):
    options = [*RESTRICTED, "--out", tmp_path / "record"]
    run(monkeypatch, *options, "--images", images(tmp_path / "one"))
    before = (tmp_path / "record" / "summary.json").read_text()
    other = images(tmp_path / "other", cat=60)
    with pytest.raises(SystemExit, match=r"other settings \(data: .*--out"):
        run(monkeypatch, *options, "--images", other)
    assert (tmp_path / "record" / "summary.json").read_text() == before


def test_a_folder_that_is_not_there_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, *RESTRICTED, "--images", tmp_path / "absent", "--out", tmp_path)
    assert "absent/train is not there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, *RESTRICTED, "--out", tmp_path)
    assert "pass --images DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on_with_the_cell_that_was_missing(tmp_path, monkeypatch, capsys):
    options = ["--quick", "--samples", 100, "--epochs", 1, "--out", tmp_path]
    original, made = narrow_fig5.cell, []

    def killed(args, data, seed, width, radius):
        made.append(radius)
        if radius is None and len(made) == 2:
            raise KeyboardInterrupt
        return original(args, data, seed, width, radius)

    monkeypatch.setattr(narrow_fig5, "cell", killed)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *options)
    assert stopped.value.code == 130
    assert "stopped; the same command goes on after the last cell" in capsys.readouterr().err
    (first,) = json.loads((tmp_path / "summary.json").read_text())["cells"]
    run(monkeypatch, *options)
    content = json.loads((tmp_path / "summary.json").read_text())
    assert content["cells"][0] == first
    assert made == [1.0, None, None]
    run(monkeypatch, *options, "--seeds", 2)  # more of an axis belongs to the same record
    assert made[3:] == [1.0, None]
    with pytest.raises(SystemExit, match="epochs: 1 there, 2 here"):
        run(monkeypatch, "--quick", "--samples", 100, "--epochs", 2, "--out", tmp_path)


def test_more_images_than_there_are_and_nets_beyond_the_memory_are_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--quick", "--samples", 5000, "--out", tmp_path)
    assert "samples is 5000, but 'digits' has 1438 training rows" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"a net with 200000 channels in its last stage .* needs about"):
        run(monkeypatch, "--quick", "--widths", 200_000, "--out", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_picture_of_a_part_of_the_cells():
    cell = {"width": 16, "radius": "inf", "seed": 0, "test_accuracy": 0.5, "test_images": 100}
    cells = [cell, cell | {"seed": 1}, cell | {"radius": None}, cell | {"width": 8, "radius": 1.0}]
    content = {"settings": {"dataset": "digits", "epochs": 4}, "cells": cells}
    (axes,) = narrow_fig5.figure(content).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "16"]
    assert "1 to 2 seeds" in axes.get_title()
    assert axes.get_legend_handles_labels()[1] == ["regime, ε = 1", "regime, ε = inf", "plain SGD"]
    (axes,) = narrow_fig5.figure(content | {"cells": cells[:1]}).axes
    assert "1 seed\n" in axes.get_title()


def test_when_the_goal_was_reached():
    looks = [{"epoch": e, "seconds": 2.0 * e, "test_accuracy": 0.9 + 0.02 * e} for e in (1, 3)]
    one = {"width": 64, "radius": 10.0, "seed": 0, "test_accuracy": 0.96, "looks": looks}
    columns = [
        list(column.cells) for column in narrow_fig5.to_goal([one, one | {"looks": looks[:1]}]).columns
    ]
    assert columns[2:] == [["3", "never"], ["6", ""]]


def test_net_on_bytes_computes_in_bfloat16():
    net = nj.models.ResNet(channels=(4,), blocks=(1,), outputs=3)
    pixels = np.zeros((2, 6, 6, 3), np.uint8)
    state = jax.eval_shape(net.init, jax.random.key(0), np.zeros((2, 6, 6, 3), np.float32))
    params = state.pop("params")
    dtypes = {}
    for size in ("cpu", "gpu"):
        apply = narrow_fig5.forward_of(narrow_fig5.RECIPES[size], net, in_bytes=True)
        with jax.numpy_dtype_promotion("standard"):  # Flax's own code
            program = str(jax.make_jaxpr(functools.partial(apply, train=True))(params, state, pixels))
        dtypes[size] = set(re.findall(r":(\w+)\[[\d,]*\] = conv_general_dilated", program))
    assert dtypes == {"cpu": {"f32"}, "gpu": {"bf16"}}


def test_images_are_moved_by_an_eighth_and_mirrored():
    images = np.arange(64.0, dtype=np.float32).reshape(1, 8, 8, 1).repeat(200, axis=0)
    varied = np.asarray(_image_sets.crop_and_flip(jax.random.key(0), images))
    inside = varied[:, 1:-1, 1:-1, 0]  # a pixel at most is from outside
    seen = {tuple(image.ravel()) for image in inside}
    whole = images[0, :, :, 0]
    windows = [whole[i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    assert seen == {tuple(w.ravel()) for window in windows for w in (window, window[:, ::-1])}


def test_what_the_ablation_puts_into_the_ball():
    """Plain SGD has none; BatchNorm's scales and biases are in it or not; only the pairwise head has a cone."""
    cases = narrow_regime_ablation.cases([0.1, 1.0])
    assert len({str(case) for case in cases}) == len(cases) == 9
    net = nj.models.ResNet((4, 6), (1, 1), head="pairwise")
    params = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)

    def held(case):
        ball, _ = narrow_regime_ablation.optimizer(case, net, steps=10).init(params)
        inside = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(ball.center)}
        return {name.split("'")[5] for name in inside}, not isinstance(
            ball.scale["head"]["v"], optax.MaskedNode
        )

    kernels = {"conv1", "conv2", "shortcut"}
    regime = narrow_regime_ablation.REGIME
    assert held(regime) == (kernels | {"norm1", "norm2", "shortcut_norm"}, True)
    assert held(regime._replace(norms=False)) == (kernels, True)
    assert held(regime._replace(head="dense"))[1] is False
    plain = narrow_regime_ablation.optimizer(narrow_regime_ablation.PLAIN, net, steps=10)
    assert not nj.constraints.report(plain.init(params))


def random_labels():
    """Records of four nets of projected descent, two radii."""
    return [
        {
            "dataset": "digits_few",
            "samples": 200,
            "kind": "±1, scaled",
            "width": width,
            "radius": radius,
            "method": "projected descent",
            "learned": [0.5, share],
            "all_at": None,
        }
        for width, radius, share in ((20, 1.0, 0.9), (40, "inf", 0.8), (40, 1.0, 0.95), (20, "inf", 0.7))
    ]


def test_each_radius_has_a_line_of_its_own():
    axes, *none = narrow_random_labels.figure({"cells": random_labels()}).axes
    assert not none
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert lines["±1, scaled, ε = 1"] == [90, 95]
    assert lines["±1, scaled, ε = inf"] == [70, 80]
    alone = [r for r in random_labels() if r["radius"] == 1.0]
    axes = narrow_random_labels.figure({"cells": alone}).axes[0]
    assert "±1, scaled" in {line.get_label() for line in axes.lines}


def test_every_net_of_the_record_of_random_labels_is_one_of_its_cases():
    content = json.loads((FIGURES / "narrow_random_labels.json").read_text())
    found = {(r["dataset"], r["samples"], r["kind"], r["width"]) for r in content["cells"]}
    wanted = {
        (name, case["samples"], kind, width)
        for name, case in narrow_random_labels.CASES.items()
        for kind, (classes, _) in narrow_random_labels.KINDS.items()
        for width in case["widths"][classes]
        if name != "digits_few"
    }
    assert found == wanted


def digits(samples):
    return nj.data.load("digits", labels="random", samples=samples, normalize="scale")


def test_too_few_weights_are_recorded_and_other_errors_are_not(tmp_path, monkeypatch):
    """Of 1,500 images of rank 61 48 units are too few, for memorize too."""
    run_of = narrow_all_images.Run("digits", "signs", None, tmp_path, set())
    [record] = run_of.cell(1500, 48, "memorise")
    assert record["outcome"] == "refused"
    assert "width 48 is too narrow" in record["message"]
    assert run_of.cell(1500, 48, "certify")[0]["outcome"] == "skipped"
    data = digits(1500)
    with pytest.raises(ValueError, match="width 48 is too narrow"):
        nj.memorize(jax.random.key(0), data.x, data.y, width=48, radius=0.1)
    assert narrow_random_labels.newton(data, 48, 0.1)["message"].startswith("width 48 is too narrow")
    told = narrow_all_images.told(record)
    assert "is too narrow" in told
    assert narrow_all_images.figure({"cells": [record]}).axes

    def fault(*args, **options):
        raise ValueError("the labels contradict each other")

    monkeypatch.setattr(nj, "memorize", fault)
    for broken in (
        lambda: run_of.cell(200, 16, "memorise"),
        lambda: narrow_random_labels.newton(digits(200), 16, 0.1),
    ):
        with pytest.raises(ValueError, match="contradict"):
            broken()


def test_both_stages_tell_one_distance(tmp_path):
    run_of = narrow_all_images.Run("digits", "signs", None, tmp_path, set())
    [found], [proven] = (run_of.cell(100, 16, stage) for stage in ("memorise", "certify"))
    assert proven["outcome"] == "certified"
    assert found["distance"] == pytest.approx(proven["distance"], rel=1e-6)
    content = json.loads((FIGURES / "narrow_all_images.json").read_text())["cells"]
    for found, proven in itertools.pairwise(r for r in content if r["outcome"] != "skipped"):
        if proven["stage"] == "certify":
            assert found["distance"] == pytest.approx(proven["distance"], rel=1e-6)


def test_records_have_the_digest_of_pixels_whatever_the_map():
    """As images come, not whitened: that is the same on every machine."""
    mark = _run.digest(_image_sets.pixels("digits", 1797, None))
    for name in ("narrow_random_labels", "deep_theorem1"):
        content = json.loads((FIGURES / f"{name}.json").read_text())
        assert content["settings"]["data"]["digits"] == mark
    raw = nj.data.load("digits", samples=1797)
    assert _run.digest(raw.x) == mark
    assert set(np.unique(raw.x * 16)) == set(range(17))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("narrow_random_labels", ["--quick"]),
        ("narrow_all_images", ["--quick"]),
        ("deep_theorem1", ["--datasets", "digits", "--depths", "1"]),
        ("narrow_theorem2", ["--dataset", "digits", "--samples", "40", "--widths", "4", "--radii", "1"]),
    ],
)
def test_other_images_are_refused(name, words, tmp_path, monkeypatch):
    """By the digest in the settings."""
    module, original = importlib.import_module(f"experiments.{name}"), _image_sets.pixels

    def quickly(args, axes, cell, told, **depends):
        def points(*values):
            return [dict(zip(axes, values, strict=True))]

        return _run.cells(args, axes, points, str, **depends)

    monkeypatch.setattr(module, "cells", quickly)
    monkeypatch.setattr(sys, "argv", [name, *words, "--out", str(tmp_path)])
    with pytest.raises(KeyError):  # those records have nothing to draw
        module.main()
    before = (tmp_path / "summary.json").read_text()
    assert json.loads(before)["cells"]
    with pytest.raises(KeyError):  # the same images go on
        module.main()
    monkeypatch.setattr(module, "pixels", lambda *asked: original(*asked)[::-1])
    with pytest.raises(SystemExit, match=r"other settings \(data: .*--out"):
        module.main()
    assert (tmp_path / "summary.json").read_text() == before
