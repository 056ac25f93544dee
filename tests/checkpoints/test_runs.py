"""Folders of runs: read as written, and every damage is a ValueError that names the file."""

import errno
import json
import zipfile
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from narrow_jax import checkpoints
from narrow_jax.checkpoints import runs, safetensors

PARAMS = {"w": np.arange(12.0).reshape(3, 4), "v": np.ones((2, 1), np.float32)}


def test_params_and_config_are_read_as_written(tmp_path):
    nested = PARAMS | {"center": {"w": PARAMS["w"] + 1, "v": PARAMS["v"]}}
    params, config = runs.load(runs.save(tmp_path / "run", nested, {"width": 4}))
    assert config == {"width": 4}
    assert params.keys() == nested.keys()
    np.testing.assert_array_equal(params["center"]["w"], nested["center"]["w"], strict=True)
    np.testing.assert_array_equal(params["v"], PARAMS["v"], strict=True)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors and no config.json"):
        runs.load(tmp_path)


def refusal(path):
    """Why the file cannot be read, or None where it holds arrays."""
    try:
        found = runs.read_npz(path)
    except ValueError as error:
        return str(error)
    assert all(isinstance(array, np.ndarray) for array in found.values())
    return None


def test_each_truncation_and_each_broken_byte_of_a_run_is_noticed(tmp_path):
    runs.save(tmp_path, {"w": PARAMS["v"], "v": {"a": PARAMS["w"]}}, {})
    path = tmp_path / "model.safetensors"
    whole, expected = path.read_bytes(), safetensors.read(path)
    refused = 0
    for i in range(len(whole)):
        for tail in (b"", *(bytes([whole[i] ^ bits]) + whole[i + 1 :] for bits in (1, 128))):
            path.write_bytes(whole[:i] + tail)
            try:
                found, _ = runs.load(tmp_path)
            except ValueError as error:
                assert str(path) in str(error)  # noqa: PT017
                refused += 1
            else:  # the name of the checksum is broken, nothing else
                np.testing.assert_array_equal(found["w"], expected["params/w"], strict=True)
                np.testing.assert_array_equal(found["v"]["a"], expected["params/v/a"], strict=True)
    assert refused > 2.9 * len(whole)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_each_truncation_and_each_broken_byte_is_read_or_refused(save, tmp_path):
    path = tmp_path / "arrays.npz"
    save(path, **PARAMS)
    whole = path.read_bytes()
    reasons = []
    for i in range(len(whole)):
        for tail in (b"", *(bytes([whole[i] ^ bits]) + whole[i + 1 :] for bits in (1, 128))):
            path.write_bytes(whole[:i] + tail)
            reasons.append(refusal(path))
    refused = [reason for reason in reasons if reason]
    assert all(str(path) in reason for reason in refused)
    assert len(refused) > len(reasons) / 2  # the rest are bytes that nobody reads, such as dates


def test_a_file_that_is_no_npz(tmp_path):
    path = tmp_path / "params"
    for content in (b"", b"w,v\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"params cannot be read \(File is not a zip file\); expected an npz"
        ):
            runs.read_npz(path)
    np.savez(tmp_path / "pickled.npz", w=np.array([{}], object))
    with pytest.raises(ValueError, match=r"pickled.npz cannot be read \(Object arrays cannot be loaded"):
        runs.read_npz(tmp_path / "pickled.npz")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(ValueError, match=r"other.zip holds readme.txt, which is no array; expected an npz"):
        runs.read_npz(tmp_path / "other.zip")


def test_a_path_that_cannot_be_opened_says_so_itself(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        runs.read_npz(tmp_path / "nowhere.npz")
    with pytest.raises(IsADirectoryError):
        runs.read_npz(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"width": ', r"config.json cannot be read \(Expecting value.*expected JSON: restore the file"),
        ("[4]", r"config.json holds a list; expected fields by name"),
        ("[" * 100_000, r"config.json cannot be read"),
    ],
)
def test_damaged_config(text, message, tmp_path):
    runs.save(tmp_path, PARAMS, json.loads("{}"))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        runs.load(tmp_path)


def leaves(x64):
    """One leaf a dtype, form and place that params can have."""
    with jax.enable_x64(x64):
        yield from {
            **{
                dtype: np.array([0, 1, 2]).astype(dtype)
                for dtype in ("bool", "int8", "float16", "float64", "complex64", "complex128")
            },
            **{
                f"jax {dtype}": jnp.arange(3, dtype=dtype)
                for dtype in ("bfloat16", "float16", "float32", "uint8")
            },
            **{
                dtype: jnp.arange(3).astype(dtype)
                for dtype in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "int4", "uint4")
            },
            "jax default": jnp.arange(3.0),
            "int64": np.array([-(2**62), 2**31, 2**53 + 1]),
            "uint64": np.array([2**64 - 1, 0], np.uint64),
            "bfloat16 of NumPy, not contiguous": np.arange(6).reshape(2, 3).astype(jnp.bfloat16).T,
            "one bfloat16": jnp.asarray(1.5, jnp.bfloat16),
            "no axis": np.float32(2.5),
            "no entry": jnp.zeros((0, 3), jnp.bfloat16),
            "big endian": np.arange(3, dtype=">f4"),
            "not finite": np.array([np.nan, -0.0, np.inf, 5e-324]),
        }.items()


def bits(array):
    """Bytes, shape and dtype: what has to come back."""
    array = np.asarray(array)
    return array.tobytes(), array.shape, array.dtype.name, array.dtype.byteorder


UNKNOWN = ("complex128", "float8_e4m3b11fnuz", "int4", "uint4", "big endian")
"""Leaves whose dtypes safetensors does not have."""


def by_run(folder, params):
    known = {name: leaf for name, leaf in params.items() if name not in UNKNOWN}
    for name in UNKNOWN:
        with pytest.raises(TypeError, match=r"has dtype .*; expected one of float64"):
            runs.save(folder / "none", {"w": params[name]}, {})
    assert not (folder / "none").exists()
    return runs.load(runs.save(folder, known, {}))[0]


def by_checkpoint(folder, params):
    checkpoints.save(folder, 1, {"params": params}, {})
    return checkpoints.restore(folder, {"params": params}, {}).state["params"]


def by_weights(folder, params):
    checkpoints.save(folder, 1, {"params": params}, {})
    return checkpoints.load_params(folder).params


@pytest.mark.parametrize("x64", [False, True], ids=["x64 off", "x64 on"])
@pytest.mark.parametrize("way", [by_run, by_checkpoint, by_weights])
def test_every_dtype_comes_back_to_the_bit(way, x64, tmp_path):
    params = dict(leaves(x64))
    with jax.enable_x64(x64):
        found = way(tmp_path, params)
    assert set(params) - set(found) == (set(UNKNOWN) if way is by_run else set())
    assert {name: bits(leaf) for name, leaf in found.items()} == {
        name: bits(leaf) for name, leaf in params.items() if name in found
    }


def test_bytes_that_lost_their_dtype_are_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", w=np.ones(2, jnp.bfloat16))
    with pytest.raises(ValueError, match=r"holds w as bytes without a dtype .*write it again as"):
        runs.read_npz(tmp_path / "arrays.npz")


NAMES = ["file", "allow_pickle", "a.b", "kernel:0", "w:bfloat16", "w.npy", "ε", "..", " "]


def test_names_come_back(tmp_path):
    params = {name: {"inner": np.float32(i)} for i, name in enumerate(NAMES)} | {"args": np.ones(1)}
    found, _ = runs.load(runs.save(tmp_path, params, {}))
    assert found.keys() == params.keys()
    assert [found[name]["inner"] for name in NAMES] == list(range(len(NAMES)))


def test_a_frozen_dict_is_a_dictionary(tmp_path):
    folder = runs.save(tmp_path, flax.core.freeze({"head": {"v": PARAMS["v"]}}), {})
    assert runs.load(folder)[0].keys() == {"head"}


W = PARAMS["w"]
LOST = {
    "list": ({"layers": [W, W]}, "params layers are of type list; expected arrays in dictionaries"),
    "tuple": ({"layers": (W, W)}, "params layers are of type tuple"),
    "no dictionary": ([W], "params as a whole are of type list"),
    "an array alone": (W, "params as a whole are of type ndarray"),
    "nothing": ({"a": {"w": W, "bias": None}}, "params a/bias are of type NoneType"),
    "empty": ({"w": W, "batch": {}}, "params batch are an empty dict"),
    "word": ({"w": "tanh"}, "params w are of type str"),
    "slash": ({"a/b": W}, "params have the name 'a/b'; expected a word without a slash"),
    "no name": ({"": W}, "params have the name ''"),
    "number": ({0: W}, "params have the name 0"),
    "key": ({"rng": jax.random.key(0)}, "'params/rng' is a random key .*save jax.random.key_data"),
    "objects": ({"w": np.array([{}])}, "'params/w' has dtype object; expected one of float64"),
}


@pytest.mark.parametrize(("params", "message"), LOST.values(), ids=LOST.keys())
def test_what_would_be_lost_is_refused_and_leaves_nothing(params, message, tmp_path):
    with pytest.raises((TypeError, ValueError), match=message):
        runs.save(tmp_path / "run", params, {})
    assert not list(tmp_path.iterdir())


def test_names_that_contradict_each_other_in_a_file(tmp_path):
    runs.save(tmp_path, PARAMS, {})
    for names, message in (
        (
            ("params/a", "params/a/b"),
            r"safetensors cannot be read \('params/a' is the name of an array and of a",
        ),
        (("params",), r"safetensors holds no params by name but params"),
        (("w",), r"safetensors holds no params by name but w"),
    ):
        safetensors.write(tmp_path / "model.safetensors", dict.fromkeys(names, W))
        with pytest.raises(ValueError, match=message):
            runs.load(tmp_path)


def test_a_run_is_not_replaced_unless_asked(tmp_path):
    folder = runs.save(tmp_path, PARAMS, {"width": 4})
    with pytest.raises(
        FileExistsError,
        match=r"holds a run already \(model.safetensors, config.json\): choose another folder",
    ):
        runs.save(folder, {"w": W + 1}, {"width": 8})
    assert runs.load(folder)[1] == {"width": 4}
    runs.save(folder, {"w": W + 1}, {"width": 8}, overwrite=True)
    assert runs.load(folder)[1] == {"width": 8}


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "checkpoints/step-00000001"])
def test_any_part_of_a_run_is_a_run(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(FileExistsError, match="holds a run already"):
        runs.save(tmp_path, PARAMS, {})


FAILURES = {
    "config": (PARAMS, {"optimizer": print}, "not JSON serializable"),
    "params": ({"w": W, "z": [W]}, {}, "params z are of type list"),
}


@pytest.mark.parametrize(("params", "config", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_a_save_that_fails_leaves_the_earlier_run(params, config, message, tmp_path):
    runs.save(tmp_path, PARAMS, {"width": 4})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError, match=message):
        runs.save(tmp_path, params, config, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_leaves_the_earlier_run(tmp_path, monkeypatch):
    runs.save(tmp_path, PARAMS, {"width": 4})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            runs.save(tmp_path, {"w": W + 1}, {}, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_config_is_strict_json_with_scalars_of_numpy(tmp_path):
    config = {"width": np.int64(8), "radius": np.inf, "rate": np.float32(0.5), "on": np.bool_(True)}
    runs.save(tmp_path, PARAMS, config)

    def refuse(word):
        raise AssertionError(word)

    found = json.loads((tmp_path / "config.json").read_text(), parse_constant=refuse)
    assert found == {"width": 8, "radius": "inf", "rate": 0.5, "on": True}


def test_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runs.save("~/run", PARAMS, {}) == tmp_path / "run"
    assert runs.load("~/run")[0].keys() == PARAMS.keys()
    np.savez(tmp_path / "arrays.npz", **PARAMS)
    assert runs.read_npz("~/arrays.npz").keys() == PARAMS.keys()
