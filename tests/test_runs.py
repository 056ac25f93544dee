"""Folders of runs: read as written, and every damage is a ValueError that names the file."""

import json
import zipfile

import numpy as np
import pytest

from narrow_jax import runs

PARAMS = {"w": np.arange(12.0).reshape(3, 4), "v": np.ones((2, 1), np.float32)}


def test_params_and_config_are_read_as_written(tmp_path):
    nested = PARAMS | {"center": {"w": PARAMS["w"] + 1, "v": PARAMS["v"]}}
    params, config = runs.load(runs.save(tmp_path / "run", nested, {"width": 4}))
    assert config == {"width": 4}
    assert params.keys() == nested.keys()
    np.testing.assert_array_equal(params["center"]["w"], nested["center"]["w"], strict=True)
    np.testing.assert_array_equal(params["v"], PARAMS["v"], strict=True)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no params.npz and no config.json"):
        runs.load(tmp_path)


def refusal(path):
    """Why the file cannot be read, or None where it holds arrays."""
    try:
        found = runs.read_npz(path)
    except ValueError as error:
        return str(error)
    assert all(isinstance(array, np.ndarray) for array in found.values())
    return None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_each_truncation_and_each_broken_byte_is_read_or_refused(save, tmp_path):
    path = tmp_path / "params.npz"
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
    [('{"width": ', r"config.json cannot be read \(Expecting value.*expected JSON"), ("[4]", "holds a list")],
)
def test_damaged_config(text, message, tmp_path):
    runs.save(tmp_path, PARAMS, json.loads("{}"))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        runs.load(tmp_path)
