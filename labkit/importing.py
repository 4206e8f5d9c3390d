"""A run folder of embeddings that were made elsewhere: every page and command that needs no model works on it.

    run = import_run({"image": "clip/image.npy", "text": "clip/text.npy"}, "points.parquet", name="clip")

All vectors must lie in one space. What is stored: the points, the vectors, the metrics of the clean space (above
`LARGEST` test samples those of a random sample) and the principal components. Everything is checked before the first
file is written, and the folder gets its name when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from tqdm import tqdm

from labkit import evaluate, frames
from labkit.data import from_arrays, read_embeddings
from labkit.importing_points import read_points
from labkit.store import Run, Store, StoreError
from labkit.store.names import check_name, check_part
from labkit.types import Embeddings

SUFFIXES = (".npy", ".parquet")
LARGEST = 5_000  # test samples that are measured; a similarity matrix of more takes minutes
_MANY = 20_000  # samples that take a while
UNMEASURED = ("neighborhood_kept",)  # compares with a space before the alignment, which there is none of
RESERVED = (
    "key", "split", "group", "label", "caption", "kind", "modality", "x", "y", "trust", "row", "point", "value",
)  # fmt: skip


def import_run(
    embeddings: Mapping[str, str | Path],
    points: str | Path,
    *,
    name: str = "imported",
    items: str | Path | None = None,
    root: str | Path | None = None,
) -> Run:
    """Make a complete run of embeddings; the same ones under the same name are not stored twice.

    Args:
        embeddings: modality -> .npy [n, d], or .parquet of numeric columns or one column of lists and maybe `key`.
            Rows are those of `points`, by their keys where the file has them; samples that it leaves out lack the
            modality.
        points: table of the samples, .parquet; see `labkit.importing_points.read_points`.
        name: what people call it, and the method that it is compared as.
        items: folder that pictures and sounds are relative to; that of `points` by default.
        root: folder of the runs.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: what does not fit together; every message names the file and the remedy.
        TypeError: values that are not real numbers.
        StoreError: the run cannot be written.
    """
    if len(embeddings) < 2:
        raise ValueError(f"an import needs two or more modalities; got {', '.join(embeddings) or 'none'}")
    for modality in embeddings:
        check_part(modality, "modality")
        if modality in RESERVED:
            raise ValueError(f"a modality cannot be called {modality!r}, a column of the points: name it MODALITY=FILE")
    check_name(name, "name of an import")
    folder = Path(items) if items is not None else Path(points).absolute().parent
    table = read_points(Path(points), tuple(embeddings), folder.resolve())
    space = _space({m: Path(path) for m, path in embeddings.items()}, table)
    table = table.assign(**{f"present_{m}": space.present[m].numpy() for m in space.modalities})
    files = {m: str(Path(path).resolve()) for m, path in embeddings.items()}
    origin = {"files": files, "points": str(Path(points).resolve()), "items": str(folder.resolve())}
    config = {"data": _data(space), "imported": {**origin, "sha256": _digest(space, table, name, origin["items"])}}
    store = Store(root)
    target = store.root / f"{name}-{config['imported']['sha256'][:10]}"
    if _is_intact(target):
        return store.open(target.name)
    return _stored(store, target, config, table, space)


def _space(files: Mapping[str, Path], points: pd.DataFrame) -> Embeddings:
    """The vectors of all modalities in the order of the points."""
    key = pd.Index(points["key"])
    vectors, present = {}, {}
    for modality, path in files.items():
        values, at = _vectors(path, key)
        vectors[modality] = np.zeros((len(key), values.shape[1]), dtype=np.float32)
        vectors[modality][at] = values
        present[modality] = np.zeros(len(key), dtype=bool)
        present[modality][at] = True
        present[modality] &= points[f"present_{modality}"].to_numpy()
    (first, width), *others = ((m, z.shape[1]) for m, z in vectors.items())
    for other, d in others:
        if d != width:
            raise ValueError(
                f"{files[other]} has {d} dimensions but {files[first]} has {width}: an import shows one space; align "
                "them first, e.g. with np.savez('both.npz', image=x, text=y) and `labkit run --dataset both.npz`"
            )
    empty = np.flatnonzero(~np.logical_or.reduce(list(present.values())))
    if len(empty):
        raise ValueError(f"sample {key[empty[0]]!r} has no modality at all ({len(empty)} such samples): drop them")
    for modality, there in present.items():
        if not there.any():
            raise ValueError(f"no sample has {modality}: mend present_{modality}, or leave {files[modality]} out")
    labels = points["label"].where(points["label"] != "other", None).to_numpy(dtype=object)
    return from_arrays(
        vectors,
        keys=key.to_numpy(dtype=str),
        labels=None if all(label is None for label in labels) else labels,
        groups=points["group"].to_numpy(),
        present=present,
    )


def _vectors(path: Path, key: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a file, and the row of the points that each belongs to."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}")
    read = read_embeddings([path])
    values = read.z[read.modalities[0]].numpy()
    if path.suffix == ".parquet" and "key" in pq.read_schema(path).names:
        at = key.get_indexer(pd.Index(read.key))
        if (at < 0).any():
            raise ValueError(
                f"{path} has key {read.key[at < 0][0]!r}, which the points lack ({int((at < 0).sum())} such rows): "
                "add them to the points, or drop them"
            )
        return values, at
    if len(values) != len(key):
        raise ValueError(
            f"{path} has {len(values)} rows but there are {len(key)} points: row i of both must be the same sample; "
            "drop or reorder rows, or write it as .parquet with a column 'key'"
        )
    return values, np.arange(len(key))


def _data(space: Embeddings) -> dict[str, Any]:
    """What an import is on: the same for imports of the same samples, which pages compare."""
    samples = hashlib.sha256("\n".join(space.key).encode()).hexdigest()
    return {"dataset": f"imported {samples[:10]}", "modalities": list(space.modalities)}


def _digest(space: Embeddings, points: pd.DataFrame, name: str, items: str) -> str:
    """Hash of all that is stored."""
    told = points.astype({c: str for c in points.columns if points[c].dtype != bool})
    content = hashlib.sha256(pd.util.hash_pandas_object(told, index=False).to_numpy().tobytes())
    content.update(json.dumps([name, list(told.columns), items]).encode())
    for modality in space.modalities:
        content.update(space.z[modality].numpy().tobytes())
    return content.hexdigest()


def _stored(store: Store, target: Path, config: Mapping[str, Any], points: pd.DataFrame, space: Embeddings) -> Run:
    """Write everything beside the runs, then give it its name."""
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".import-", dir=store.root))
    except OSError as error:
        raise StoreError(
            f"cannot write {store.root} ({error.strerror}): set LABKIT_RUNS to a folder you may write"
        ) from error
    try:
        run = Store(beside).create(
            target.name,
            name=target.name.rpartition("-")[0],
            variant=target.name.rpartition("-")[0],
            config=config,
            seed=0,
            data_root=str(config["imported"]["items"]),
        )
        parts = {"points": _write_points, "frame": _write_frame, "metrics": _measure}
        bar = tqdm(parts.items(), unit="part", disable=len(points) < _MANY)
        for part, write in bar:
            bar.set_description(f"import: {part}")
            write(run, space, points)
        run.complete()
        if target.exists():  # damaged, or nobody would have come here
            target.rename(beside / "damaged")
        run.folder.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return store.open(target.name)


def _write_points(run: Run, space: Embeddings, points: pd.DataFrame) -> None:
    run.write_points(points)
    (run.folder / "log.jsonl").touch()  # nothing was trained: the history is empty, not missing
    for modality in space.modalities:
        run.write_embedding(modality, frames.FINAL, space.z[modality].numpy())


def _write_frame(run: Run, space: Embeddings, points: pd.DataFrame) -> None:
    frames.write_principal(run, space)


def _measure(run: Run, space: Embeddings, points: pd.DataFrame) -> None:
    """The metrics of the test samples, or of a random sample of them."""
    rows = np.flatnonzero(points["split"] == "test")
    if len(rows) > LARGEST:
        rows = np.sort(np.random.default_rng(0).choice(rows, LARGEST, replace=False))
    found = evaluate.of_space(space.take(rows), without=UNMEASURED, resamples=1000)
    for metric, field in found.fields.items():
        run.write_field(metric, frames.FINAL, field)
    if len(found.scores):  # a few samples have no metric at all
        run.write_scores(found.scores)


def _is_intact(folder: Path) -> bool:
    """Whether there is a complete run, with all files that it lists."""
    if not folder.exists():
        return False
    try:
        run = Run(folder)
        return run.status == "complete" and all(run.path(name) for name in run.files)
    except StoreError:
        return False
