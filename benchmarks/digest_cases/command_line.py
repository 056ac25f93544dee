"""The command line: exit status, what it says, and the files that it leaves."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.digest_cases.files import listed
from benchmarks.digest_cases.given import enter_all, folder
from narrow_jax import cli, runs
from narrow_jax.checkpoints import safetensors

SMALL = ("--dataset", "synthetic", "--samples", "30")
TRAIN = ("train", *SMALL, "--width", "8", "--optimizer", "sgd", "--learning-rate", "1e-3", "--steps", "20")
PYRAMID = (
    "certify",
    "pyramidal",
    "--dataset",
    "synthetic",
    "--samples",
    "6",
    "--sphere",
    "--targets-scale",
    "0.01",
)
DIGITS = ("train", "--dataset", "digits", "--samples", "60", "--normalize", "standardize", "--width", "24")
RELU = {"dataset": "synthetic", "samples": 30, "activation": "relu", "model": "standard"}
TIMES = (r'(?<="seconds": )[\d.e-]+', r"(?m)(?<=^  seconds)( +)[\d.e-]+", r"\b[\d.]+(?= s\b)")
"""Where a time is said."""

COLUMNS = "100"

Line = Sequence[str]


def commands(*lines: Line, prepare: Callable[[Path], Any] | None = None) -> Any:
    """Run commands one after the other in one folder, ``{}`` in their words standing for it."""
    with folder() as place, surroundings():
        if prepare is not None:
            prepare(place)
        said = [run([word.replace("{}", str(place)) for word in line]) for line in lines]
        return {"said": said, "files": listed(place), "contents": contents(place)}


@contextmanager
def surroundings() -> Iterator[None]:
    """Set the width of the help, and forget the folders of whoever runs this."""
    before = dict(os.environ)
    os.environ["COLUMNS"] = COLUMNS
    for name in ("NARROW_JAX_RAW", "NARROW_JAX_DATA"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(words: list[str]) -> dict[str, Any]:
    """Return exit status and what was printed, without times."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status: Any = cli.main(words)
        except SystemExit as stop:
            status = f"left with {stop.code}"
    return {"status": status, "out": timeless(out.getvalue()), "err": timeless(err.getvalue())}


def timeless(text: str) -> str:
    """Return the text without the times that it says."""
    for pattern in TIMES:
        text = re.sub(pattern, "…", text)
    return text


def contents(place: Path) -> dict[str, Any]:
    """Return arrays and texts of the files, without times; of checkpoints none: Orbax writes them its own way."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if "checkpoints" in name:
            continue
        if path.suffix == ".safetensors":
            found[name] = safetensors.read(path)
        elif path.suffix == ".json":
            found[name] = {
                key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"
            }
        elif path.is_file():
            found[name] = path.read_bytes() if path.suffix == ".png" else timeless(path.read_text())
    return found


def weights(place: Path, *widths: int, **config: Any) -> None:
    """Write a run of a deep or standard net with random weights."""
    rng = np.random.default_rng(0)
    sizes = list(zip((20, *widths[:-1]), widths, strict=True))
    names = ("w", "v") if len(sizes) == 2 else [f"w{i + 1}" for i in range(len(sizes))]
    params = {name: rng.normal(size=size) for name, size in zip(names, sizes, strict=True)}
    runs.save(place / "run", params, RELU | config)


OUT = ("--out", "{}/run")
FROM = ("--run", "{}/run")
VALUE = ("certify", "stationary-value", *FROM)

LINES: dict[str, Callable[[], Any]] = {
    "train": lambda: commands(
        (*TRAIN, *OUT, "--radius", "0.5", "--seed", "3"), ("spectrum", *FROM), (*TRAIN, *OUT)
    ),
    "train, as JSON": lambda: commands((*TRAIN, *OUT, "--json", "--sigma-min", "--every", "5")),
    "train, batches": lambda: commands(
        (
            *DIGITS,
            *OUT,
            "--loss",
            "cross_entropy",
            "--steps",
            "30",
            "--batch-size",
            "20",
            "--schedule",
            "constant",
        )
    ),
    "train, random labels": lambda: commands(
        (
            *DIGITS,
            *OUT,
            "--labels",
            "random",
            "--classes",
            "3",
            "--kappa",
            "4",
            "--optimizer",
            "momentum",
            "--steps",
            "9",
        )
    ),
    "train, standard": lambda: commands(
        (*TRAIN, *OUT, "--model", "standard", "--activation", "relu", "--radius", "inf"), VALUE
    ),
    "train, diverged": lambda: commands(
        (
            *TRAIN[:-4],
            "--learning-rate",
            "1e9",
            "--steps",
            "100",
            *OUT,
            "--model",
            "standard",
            "--radius",
            "inf",
        )
    ),
    "train, resumed": lambda: commands(
        (*TRAIN, *OUT, "--checkpoint", "--save-every", "4", "--batch-size", "10"),
        (*TRAIN, *OUT, "--resume", "17", "--save-every", "4", "--batch-size", "10"),
        (*TRAIN, *OUT, "--resume", "--batch-size", "11"),
        (*TRAIN, *OUT, "--checkpoint", "--batch-size", "10"),
        (*TRAIN, *OUT, "--overwrite"),
    ),
    "train, too narrow": lambda: commands(
        ("train", "--dataset", "synthetic", "--width", "4", "--steps", "2", *OUT)
    ),
    "train, refused": lambda: commands(
        *(
            (*TRAIN, *OUT, *words)
            for words in (
                ("--width", "7"),
                ("--radius", "-1"),
                ("--kappa", "0.5"),
                ("--zeta", "0"),
                ("--learning-rate", "0"),
                ("--steps", "0"),
                ("--batch-size", "31"),
                ("--dataset", "mnits"),
                ("--activation", "tahn"),
                ("--loss", "cross_entropy"),
                ("--samples", "200", "--width", "4", "--strict"),
                ("--model", "deep"),
                ("--resume", "7"),
                ("--classes", "3"),
                ("--normalize", "none"),
            )
        )
    ),
    "train, without data": lambda: commands(
        ("train", "--dataset", "svhn_cropped_subset", *OUT, "--raw-dir", "{}/none", "--data-dir", "{}/none")
    ),
    "memorize": lambda: commands(
        ("memorize", *SMALL, "--width", "4", "--radius", "0.1", *OUT),
        ("certify", "memorization", *FROM),
        ("certify", "memorization", *FROM, "--json"),
        ("spectrum", *FROM, "--json"),
        VALUE,
        ("memorize", *SMALL, *OUT),
    ),
    "memorize, as JSON": lambda: commands(("memorize", *SMALL, "--json", *OUT, "--normalize", "whiten")),
    "memorize, refused": lambda: commands(
        *(
            ("memorize", *SMALL, *OUT, *words)
            for words in (
                ("--width", "7"),
                ("--width", "2"),
                ("--radius", "0"),
                ("--kappa", "0.1"),
                ("--activation", "reul"),
            )
        )
    ),
    "certify memorization, not proven": lambda: commands(
        ("train", *SMALL, "--width", "4", "--steps", "5", *OUT, "--json"), ("certify", "memorization", *FROM)
    ),
    "spectrum": lambda: commands(
        ("spectrum", *SMALL, "--width", "8"),
        ("spectrum", *SMALL, "--width", "8", "--method", "qr", "--json"),
        ("spectrum", *SMALL, "--width", "2"),
        ("spectrum", *SMALL, "--width", "5", "--model", "standard", "--activation", "softplus"),
        ("spectrum", *SMALL, "--width", "8", "--plot", "{}/spectrum.png"),
        ("spectrum", *SMALL, "--width", "8", "--plot", "{}/spectrum.png"),
    ),
    "spectrum, refused": lambda: commands(
        *(
            ("spectrum", *SMALL, "--width", "8", *words)
            for words in (
                ("--method", "grma"),
                ("--memory-budget", "1e-9"),
                ("--run", "{}/none"),
                ("--plot", "{}/spectrum.doc"),
            )
        )
    ),
    "certify stationary-value": lambda: commands(
        VALUE,
        (*VALUE, "--json"),
        (*VALUE, "--tolerance", "10", "--method", "lsmr"),
        (*VALUE, "--cutoff", "lapack", "--method", "dense"),
        *(
            (*VALUE, *words)
            for words in (("--method", "qrr"), ("--cutoff", "nrr"), ("--memory-budget", "1e-9"))
        ),
        prepare=lambda place: weights(place, 2, 1),
    ),
    "certify stationary-value, deep": lambda: commands(VALUE, prepare=lambda place: weights(place, 3, 2, 1)),
    "certify stationary-value, tanh": lambda: commands(
        VALUE, prepare=lambda place: weights(place, 2, 1, activation="tanh")
    ),
    "certify pyramidal": lambda: commands(
        (*PYRAMID, "--widths", "40", "3"),
        (*PYRAMID, "--widths", "40", "3", "--json", "--target-loss", "1e-9"),
        (*PYRAMID, "--widths", "40", "--start", "lecun", "--learning-rate", "1e-3"),
        (*PYRAMID, "--widths", "9", "--start", "gaussian", "--activation", "tanh"),
        (*PYRAMID, "--widths", "0"),
        (*PYRAMID, "--gamma", "2"),
        (*PYRAMID, "--params", "{}/none.npz"),
    ),
    "help": lambda: commands(
        ("--help",),
        *(
            (*words, "--help")
            for words in (
                ("train",),
                ("spectrum",),
                ("memorize",),
                ("certify",),
                ("certify", "memorization"),
                ("certify", "stationary-value"),
                ("certify", "pyramidal"),
            )
        ),
        ("trian",),
        (),
        ("train", "--width", "many"),
    ),
}
enter_all("command line/", LINES)
