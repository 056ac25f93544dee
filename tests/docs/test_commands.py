"""The commands of the records: each asks its experiment for the settings and the cells that the record has."""

import contextlib
import importlib
import itertools
import json
import shlex
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from measured import reading
from measured.commands import command
from redraw import experiment_of

from experiments import _run
from narrow_jax.checkpoints import strict_json

NAMES = reading.recorded()
IMAGES = {
    "narrow_images": "load",
    "narrow_fig5": "load",
    "narrow_regime_ablation": "in_arrays",
    "depth_width_fig1": "load",
}
"""What reads images before the cells are asked for."""


STAND_INS = {
    "memory_needed": lambda *_: 0,
    "pixels": lambda name, samples, raw_dir: np.eye(samples, 4),
    "instance": lambda *_: (np.eye(4), np.ones(4)),
}
"""What would read images, or count what they take, before that."""


def blank(args, *_, **__):
    """Stand in for images."""
    samples = getattr(args, "samples", None) or 10
    x = np.zeros((samples, 4))
    y, labels = np.zeros((samples, 2)), np.zeros(samples)
    return SimpleNamespace(x=x, y=y, labels=labels, samples=samples, outputs=2, test=(x, labels), mark="")


def asked(monkeypatch, tmp_path, name):
    """Return the options with which the command of a record asks for cells, and the values of their axes."""
    module = importlib.import_module(f"experiments.{experiment_of(name)}")
    calls, short = [], module.__name__.split(".")[1]

    def cells(args, axes, *_, **__):
        calls.append((dict(vars(args)), {axis: plain(values) for axis, values in axes.items()}))
        return []

    monkeypatch.setattr(module, "cells", cells)
    monkeypatch.setattr(_run, "_publish", lambda *_: None)
    if short in IMAGES:
        monkeypatch.setattr(module, IMAGES[short], blank)
    for function, stand_in in STAND_INS.items():
        if hasattr(module, function):
            monkeypatch.setattr(module, function, stand_in)
    if short == "narrow_theorem2":
        monkeypatch.setattr(
            module, "problem", lambda args: (np.eye(args.samples), np.ones((args.samples, 1)))
        )
    words = [str(tmp_path) if word == "DIR" else word for word in shlex.split(command(name).strip("`"))]
    assert words[:3] == ["python", "-m", module.__name__]
    monkeypatch.setattr(sys, "argv", words[2:])
    with jax.numpy_dtype_promotion("standard"), contextlib.suppress(Exception, SystemExit):
        module.main()  # ends where it would say what the cells show
    return calls


def plain(values):
    """Return values of an axis as a record has them, to compare."""
    return {json.dumps(value) for value in strict_json.plain(list(values))}


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_record_asks_for_what_it_has(name, monkeypatch, tmp_path):
    content, calls = reading.whole_record(name), asked(monkeypatch, tmp_path, name)
    assert calls, command(name)
    options = strict_json.plain(calls[0][0])
    for option, value in content["settings"].items():
        if option in options:
            assert options[option] == value, option
    for axis in calls[0][1]:
        wanted = set().union(*(axes[axis] for _, axes in calls))
        assert {json.dumps(r[axis]) for r in content["cells"]} == wanted, axis


def test_records_of_one_experiment_have_folders_of_their_own():
    folders = {}
    for name in NAMES:
        words = shlex.split(command(name).strip("`"))
        after = dict(itertools.pairwise(words))
        folders.setdefault((words[2], after.get("--dataset"), after.get("--out")), []).append(name)
    assert [names for names in folders.values() if len(names) > 1] == []


@pytest.fixture
def changed(monkeypatch, tmp_path):
    """Change a record."""

    def change(name, settings, fields):
        content = reading.whole_record(name)
        content["settings"].update(settings)
        content["cells"] = [{**cell, **fields} for cell in content["cells"]]
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        monkeypatch.setattr(reading, "FIGURES", tmp_path)

    return change


@pytest.mark.parametrize(
    ("name", "settings", "fields", "words"),
    [
        ("depth_width_fig1_synthetic", {"seeds": 5}, {}, "--dataset synthetic --samples 5000 --seeds 5"),
        ("depth_width_fig1_mnist", {}, {"width": 9}, "--widths 9 --raw-dir DIR"),
        ("narrow_ablation", {"kappa": 2.0}, {}, "--kappa 2"),
        ("narrow_ablation", {}, {"radius": "inf"}, "--radii inf"),
        ("narrow_regime_ablation", {}, {"seed": 0}, "--seeds 1 --dataset cifar10 --raw-dir DIR"),
        ("narrow_theorem2_digits", {"samples": 100}, {}, "--dataset digits --samples 100"),
        (
            "narrow_theorem2_digits",
            {"dataset": "mnist"},
            {},
            "--raw-dir DIR --out runs/narrow_theorem2_digits",
        ),
        ("pyramidal_lecun", {}, {"samples": 7}, "--numbers 7"),
        ("descent_bound", {}, {"name": "few samples"}, "--datasets 'few samples'"),
    ],
)
def test_other_settings_are_another_command(name, settings, fields, words, changed):
    before = command(name)
    changed(name, settings, fields)
    assert command(name) != before
    for part in words.split(" --"):
        assert part.removeprefix("--") in command(name)
