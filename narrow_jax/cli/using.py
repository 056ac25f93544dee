"""``narrow-jax predict`` and ``narrow-jax evaluate``: the net of a run on data of one's own."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax import data as datasets
from narrow_jax.checkpoints import runs
from narrow_jax.cli.command import Answer
from narrow_jax.cli.config import load_data, read_run
from narrow_jax.models import Model, load


def predict(args: argparse.Namespace) -> Answer:
    """Predict each row, and write the table."""
    if args.out is not None and args.out.exists() and not args.overwrite:
        raise FileExistsError(
            f"{args.out} is there already: choose another file, or replace it with --overwrite"
        )
    model = load(args.folder)
    x, _ = _rows(args.data, model)
    columns = _named(model, model.predict(x))
    if args.probabilities:
        chances = model.predict_proba(x)
        names = model.classes or tuple(range(chances.shape[1]))
        columns |= {f"p({name})": chances[:, place] for place, name in enumerate(names)}
    text = _csv(columns)
    record = {"run": str(args.folder), "rows": len(x), "out": args.out and str(args.out)}
    if args.out is None:
        plain = {name: values.tolist() for name, values in columns.items()}
        return Answer(True, record | {"predictions": plain}, text.splitlines())
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {args.out.parent} for {args.out.name}: make it")
    runs.replace_file(args.out, text)
    return Answer(True, record, [f"{len(x)} predictions written to {args.out}"])


def evaluate(args: argparse.Namespace) -> Answer:
    """Compare predictions with targets."""
    model = load(args.folder)
    if args.data is not None:
        x, y = _rows(args.data, model)
        if y is None:
            raise ValueError(
                f"{args.data} has no target; expected the column that the run learned beside the others"
            )
        source = str(args.data)
    else:
        model, x, y = _test_split(args, model)
        source = "the test split of the run"
    found = model.predict(x)
    scores: dict[str, Any] = {"samples": len(found)}
    if np.issubdtype(np.asarray(found).dtype, np.floating) and model.classes is None:
        scores["r2"] = model.score(x, y)
        missed = np.asarray(y, float).reshape(found.shape) - found
        scores["root_mean_squared_error"] = float(np.sqrt(np.mean(missed**2)))
    else:
        scores["accuracy"] = model.score(x, y)
    lines = [f"  {name:24} {value:.6g}" for name, value in scores.items()]
    return Answer(True, {"run": str(args.folder), "data": source} | scores, [f"on {source}", *lines])


def _rows(path: Path, model: Model) -> tuple[Any, np.ndarray | None]:
    """Return the samples of a file, and its targets if it has them."""
    if path.suffix.lower() == ".npz":
        found = runs.read_npz(path)
        if "x" not in found:
            raise ValueError(
                f"{path} holds {', '.join(found) or 'nothing'}; expected an array x, one row a sample"
            )
        return found["x"], found.get("y")
    frame = datasets.read_table(path)
    if model.columns is None:
        return frame.to_numpy(), None
    target = model.columns.target
    return frame, datasets.target_values(frame, target) if target in frame.columns else None


def _named(model: Model, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of the predictions by name."""
    name = "prediction" if model.columns is None else model.columns.target
    if values.ndim == 1:
        return {name: values}
    return {f"{name} {column}": values[:, column] for column in range(values.shape[1])}


def _csv(columns: dict[str, np.ndarray]) -> str:
    """Return a table as text; numbers are written so that they are read back to the bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    return text.getvalue()


def _test_split(args: argparse.Namespace, model: Model) -> tuple[Model, np.ndarray, np.ndarray]:
    """Return the test split as the net sees it, its targets, and the model without the maps that it is under."""
    try:
        config, _, _ = read_run(args.folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, whose test split is meant; or pass --data") from error
    data = load_data(config, args.raw_dir, args.data_dir)
    if data.x_test is None or data.y_test is None or config.labels == "random":
        raise ValueError(
            f"the run in {args.folder} has no test split; expected data that it has not seen: pass --data, or train "
            "with "
            "--test or --test-fraction"
        )
    seen = dataclasses.replace(model, normalizer=None, columns=None)
    if data.labels_test is None or data.names is None:
        y = data.y_test if data.target_map is None else data.target_map.invert(data.y_test)
        return seen, data.x_test, y
    return seen, data.x_test, np.asarray(data.names, dtype=object)[data.labels_test]
