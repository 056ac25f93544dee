"""One path for everybody to the sets of tensorflow-datasets, without TensorFlow.

Prepared under ``data_dir``? Read it. Otherwise prepare it: from original files under ``raw_dir/<name>``,
where they are, from the network for the rest. Otherwise one error says what is missing and what helps.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from narrow_jax.data.dataset import Source, Split
from narrow_jax.data.extras import extra

NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped")
_LOOK_SECONDS = 5
_READ_AT_ONCE = 1024


def read(name: str, raw_dir: Path | None, data_dir: Path, download: bool) -> Source:
    """Return the data set, prepared first where it is not yet.

    The first reading stores the decoded images beside the prepared set, as ``.npy``.

    Raises:
        ImportError: the extra ``data`` is not installed.
        FileNotFoundError: neither prepared nor in ``raw_dir`` nor to be downloaded.
        ValueError: an original file does not have its published checksum.
    """
    builder = _builder(name, data_dir)
    # Asked about a folder that does not exist, tensorflow-datasets warns
    if not (builder.data_path.exists() and builder.is_prepared()):
        builder.folder = None if raw_dir is None else raw_dir / name
        _prepare(builder, raw_dir, data_dir, download)
    cache = data_dir / "decoded" / name / str(builder.version)
    return Source(
        train=_split(builder, "train", cache),
        test=_split(builder, "test", cache),
        classes=builder.info.features["label"].num_classes,
        levels=255,
        image_shape=builder.info.features["image"].shape,
    )


def _builder(name: str, data_dir: Path) -> Any:
    builders = extra("narrow_jax.data.builders", f"the data set {name!r}").BUILDERS
    try:
        return builders[name](data_dir=data_dir, file_format="array_record")
    except ValueError as error:
        raise ValueError(
            f"data_dir ({data_dir}) holds {name!r} in a form that needs TensorFlow ({error}): "
            "choose another data_dir, and it is prepared there anew"
        ) from error


def _prepare(builder: Any, raw_dir: Path | None, data_dir: Path, download: bool) -> None:
    missing = builder.missing()
    if missing:
        obstacle = _obstacle(next(iter(missing.values()))) if download else "download=False"
        if obstacle:
            raise FileNotFoundError(_not_found(builder, raw_dir, data_dir, obstacle))
    _verify(builder)
    tfds = extra("tensorflow_datasets", f"the data set {builder.name!r}")
    config = tfds.download.DownloadConfig(manual_dir=builder.folder, try_download_gcs=False)
    print(f"preparing the data set {builder.name} in {data_dir}", file=sys.stderr)
    # standard output may be somebody's JSON; bars of a download that does not take place are of no use
    shown = sys.stderr if missing else io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            builder.download_and_prepare(
                download_dir=data_dir / "downloads" / builder.name,
                download_config=config,
                file_format="array_record",
            )
    except (tfds.download.DownloadError, OSError) as error:
        if not missing:
            raise
        raise FileNotFoundError(_not_found(builder, raw_dir, data_dir, str(error))) from error
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise ValueError(
            f"{builder.name}: what was downloaded is damaged or another file. {error}"
        ) from error


def _verify(builder: Any) -> None:
    """Compare each original file in the folder with its published checksum."""
    for url, info in builder.url_infos.items():
        path = builder.folder and builder.folder / info.filename
        if path and path.is_file():
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != info.checksum:
                raise ValueError(
                    f"{builder.name}: {path} has the sha256 {found}, the published one is {info.checksum}: "
                    f"the file is damaged or another one; replace it by {url}"
                )


def _obstacle(url: str) -> str:
    """Return why the address cannot be read, or nothing: a quick look before minutes of retries."""
    try:
        # urlopen would keep the proxies of the first call of the process
        urllib.request.build_opener().open(url, timeout=_LOOK_SECONDS).close()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return ""


def _not_found(builder: Any, raw_dir: Path | None, data_dir: Path, obstacle: str) -> str:
    missing = builder.missing()
    folder = builder.folder or Path("RAW", builder.name)
    files = "\n".join(f"  {file}  {url}" for file, url in missing.items())
    place = f"raw_dir is {raw_dir}" if raw_dir else "no raw_dir, and NARROW_JAX_RAW is not set"
    return (
        f"{builder.name} is not prepared in data_dir ({data_dir}), its original files are not in {folder} "
        f"({place}), and they were not downloaded ({obstacle}). Missing{builder.instead}:\n{files}\n"
        "Where there is a network, fetch them with\n"
        f"  curl -fL --create-dirs --output-dir {folder} --remote-name-all {' '.join(missing.values())}\n"
        f"and call load({builder.name!r}, raw_dir={str(folder.parent)!r}), "
        f"or set NARROW_JAX_RAW={folder.parent}"
    )


def _split(builder: Any, split: str, cache: Path) -> Split:
    paths = [cache / f"{split}.{part}.npy" for part in ("images", "labels")]
    if not all(path.is_file() for path in paths):
        arrays = _decode(builder, split)
        with contextlib.suppress(OSError):  # a data_dir that others prepared may be read-only
            for path, array in zip(paths, arrays, strict=True):
                save_array(path, array)
        return Split(*arrays)
    return Split(*(np.load(path, mmap_mode="r", allow_pickle=False) for path in paths))


def _decode(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, height, width, channels) and labels (n,), in the order of the prepared set.

    Pillow is called here, not by tensorflow-datasets, which takes twice the time and warns about OpenCV.
    """
    tfds = extra("tensorflow_datasets", f"the data set {builder.name!r}")
    open_image = extra("PIL.Image", f"the data set {builder.name!r}").open
    source = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.uint8)
    for start in range(0, len(source), _READ_AT_ONCE):
        rows = range(start, min(start + _READ_AT_ONCE, len(source)))
        for row, example in zip(rows, source.__getitems__(rows), strict=True):
            images[row] = np.asarray(open_image(io.BytesIO(example["image"]))).reshape(images.shape[1:])
            labels[row] = example["label"]
    return images, labels


def save_array(path: Path, array: np.ndarray) -> None:
    """Write under another name first: a reader beside us must never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    partial.replace(path)
