"""What is written: checkpoints, records, folders of runs; and runs that go on from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import narrow_jax as nj
from benchmarks.digest_cases.given import case, data, fit, folder, start
from narrow_jax import runs


def listed(place: Path) -> list[str]:
    """Return the names of all files, of a checkpoint only those that Orbax does not name at random."""
    found = sorted(str(path.relative_to(place)) for path in place.rglob("*"))
    return [name for name in found if "arrays/" not in name]


def records(path: Path) -> list[Any]:
    """Return the records of a file of JSON lines, and their text."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@case("fit/resumed", x64=True)
def resumed() -> Any:
    """A whole run with checkpoints and a record, and the rest of it from a checkpoint in the middle."""
    tx = nj.constraints.regime(optax.adam(1e-2), 0.1)
    options: dict[str, Any] = {
        "steps": 20,
        "every": 2,
        "batch_size": 5,
        "key": jax.random.key(1),
    }
    with folder() as place:

        def kept(**more: Any) -> nj.callbacks.Checkpoint:
            return nj.callbacks.Checkpoint(
                place / "saved", every=5, config={"rate": 1e-2, "radius": np.inf}, **more
            )

        whole = fit(tx, **options, callbacks=[kept(), nj.callbacks.Record(place / "whole.jsonl")])
        steps = nj.checkpoints.steps(place / "saved")
        callbacks = [kept(resume=steps[0]), nj.callbacks.Record(place / "rest.jsonl")]
        rest = fit(tx, **options, callbacks=callbacks)
        again = fit(tx, **options, callbacks=[kept(resume=True)])
        return {
            "whole": whole,
            "rest": rest,
            "again": again["repr"],
            "steps": [steps, nj.checkpoints.steps(place / "saved")],
            "records": [records(place / name) for name in ("whole.jsonl", "rest.jsonl")],
            "same": (place / "whole.jsonl").read_bytes() == (place / "rest.jsonl").read_bytes(),
            "files": listed(place),
        }


@case("fit/resumed, another run")
def another() -> Any:
    """What is said where a checkpoint is of another run."""
    with folder() as place:
        fit(steps=6, callbacks=[nj.callbacks.Checkpoint(place, config={"rate": 1.0})])
        said = {}
        changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "config": ({}, {"config": {"rate": 2.0}}),
            "steps": ({"steps": 7}, {}),
            "data": ({"data": data(9)}, {}),
            "start": ({"params": start(seed=5)}, {}),
            "step": ({}, {"resume": 5}),
            "not resumed": ({}, {"resume": False}),
        }
        for name, (options, kept) in changes.items():
            chosen: dict[str, Any] = {"resume": True, "config": {"rate": 1.0}} | kept
            callback = nj.callbacks.Checkpoint(place, **chosen)
            try:
                fit(**{"steps": 6, "callbacks": [callback]} | options)
            except (ValueError, OSError) as error:
                said[name] = [type(error).__name__, str(error)]
        return said


@case("checkpoints/saved and restored")
def checkpoints() -> Any:
    """A checkpoint of arrays of all kinds, read back, and what tells one tree from another."""
    state = {
        "params": {
            "w": jnp.arange(6.0).reshape(2, 3),
            "half": jnp.ones(2, jnp.bfloat16),
            "none": jnp.zeros((0, 3)),
        },
        "model_state": [np.arange(3), np.bool_(True), jax.random.key(4)],
    }
    config = {"width": 4, "radius": np.inf, "sizes": (1, np.int64(2))}
    with folder() as place:
        saved = nj.checkpoints.save(place, 40, state, config, {"loss": np.array([1.0, 0.5])})
        read = nj.checkpoints.restore(place, state, config)
        weights = nj.checkpoints.load_params(place)
        files = listed(place)
        (saved / "manifest.json").write_text("{}")
        try:
            damage = str(nj.checkpoints.restore(place, state, config))
        except nj.checkpoints.CheckpointError as error:
            damage = str(error)
    return {
        "restored": read,
        "weights": weights,
        "files": files,
        "damage": damage,
        "json": nj.checkpoints.as_json(config),
        "fingerprints": [nj.checkpoints.fingerprint(state["params"]), nj.checkpoints.described(np.eye(2))],
        "keep": nj.checkpoints.KEEP,
    }


@case("runs/saved and loaded")
def folders() -> Any:
    """Folders of runs, nested params, a dtype that NumPy does not know, and what is refused."""
    params = {"a": {"w": np.eye(2), "half": jnp.ones(3, jnp.bfloat16)}, "v": np.arange(3)}
    with folder() as place:
        saved = runs.save(place / "run", params, {"width": 4, "radius": np.inf})
        found: dict[str, Any] = {
            "folder": str(saved),
            "files": listed(place),
            "loaded": runs.load(saved),
            "read": runs.read(saved),
            "text": (saved / "config.json").read_text(),
        }
        for name, refused in {
            "again": lambda: runs.save(saved, params, {}),
            "nowhere": lambda: runs.load(place / "none"),
            "config": lambda: runs.save(place / "other", params, {"f": print}),
        }.items():
            try:
                refused()
            except (OSError, ValueError, TypeError) as error:
                found[name] = [type(error).__name__, str(error)]
        runs.save(saved, {"w": np.ones(2)}, {}, overwrite=True)
        return found | {"replaced": runs.load(saved)}
