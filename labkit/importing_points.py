"""The table of samples that comes with imported embeddings, checked and completed to what a run stores.

Columns, all of them optional:

    key             unique, a text; row numbers by default
    split           train, validation or test; all test by default
    group           samples that are right answers of each other; each its own by default
    label           class; missing where unknown
    caption         what people call it, and what the search looks through
    <modality>      its raw item: a text, or the path of a picture or sound below the folder of the items
    present_<m>     whether the sample has the modality m
    ...             anything else of texts, numbers or booleans is kept
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from labkit.store.media import media_type
from labkit.store.names import resolve_inside

SPLITS = ("train", "validation", "test")
UNLABELED = "other"
_MANY = 20_000  # files that take seconds to look for


def read_points(path: Path, modalities: tuple[str, ...], items: Path) -> pd.DataFrame:
    """Points as `Run.write_points` takes them.

    Args:
        path: .parquet.
        modalities: of the embeddings.
        items: folder of pictures and sounds, absolute.

    Raises:
        FileNotFoundError: no such file, or items that do not exist.
        ValueError: it cannot be read, or a column does not fit; the message names it.
    """
    given = _table(path)
    n = len(given)
    split, group = _split(given, path), _group(given, path)
    points = pd.DataFrame({"key": _keys(given, path), "split": split, "group": group, "label": _labels(given)})
    for column in given.columns.difference([*points, *modalities], sort=False):
        if column.startswith("present_"):
            if column.removeprefix("present_") not in modalities:
                raise ValueError(f"{path} has {column!r}, but there are embeddings of {', '.join(modalities)} only")
            continue
        points[column] = _plain(given[column], path)
    for modality in modalities:
        points[modality] = _texts(given[modality], path) if modality in given else pd.Series([None] * n, dtype="string")
        _check_items(points[modality], items, path)
        points[f"present_{modality}"] = _present(given, modality, path)
    return points


def _table(path: Path) -> pd.DataFrame:
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: points must be .parquet; `pandas.read_csv(...).to_parquet(...)` makes one")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # noqa: BLE001  pyarrow, pandas and the system have exceptions of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as .parquet ({reason}); write the file again") from error
    if table.empty:
        raise ValueError(f"{path} has no rows; give one per sample")
    if "key" in (table.index.names or ()):
        table = table.reset_index()
    table = table.reset_index(drop=True).rename(columns=str)
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{path} has two columns {twice[0]!r}: drop or rename one")
    return table


def _keys(given: pd.DataFrame, path: Path) -> pd.Series:
    if "key" not in given:
        return pd.Series(np.arange(len(given)).astype(str))
    key = given["key"]
    _refuse_missing(key, path)
    key = _texts(key, path).astype(object)
    twice = key.duplicated()
    if twice.any():
        raise ValueError(f"{path}: key {key[twice].iloc[0]!r} occurs twice; keys must be unique: drop or rename rows")
    if (key == "").any():
        raise ValueError(f"{path}: the key of row {int((key == '').argmax())} is empty; give each sample a name")
    return key


def _split(given: pd.DataFrame, path: Path) -> pd.Series:
    if "split" not in given:
        return pd.Series(["test"] * len(given))
    _refuse_missing(given["split"], path)
    split = given["split"].astype(str)
    unknown = sorted(set(split) - set(SPLITS))
    if unknown:
        raise ValueError(f"{path}: split {unknown[0]!r} is not one of {', '.join(SPLITS)}: rename it")
    if not (split == "test").any():
        raise ValueError(f"{path} has no sample of the split 'test', which is what is measured: add some")
    return split


def _group(given: pd.DataFrame, path: Path) -> np.ndarray:
    if "group" not in given:
        return np.arange(len(given))
    _refuse_missing(given["group"], path)
    return pd.factorize(_plain(given["group"], path))[0]


def _labels(given: pd.DataFrame) -> pd.Series:
    if "label" not in given:
        return pd.Series([UNLABELED] * len(given))
    return given["label"].astype(object).where(given["label"].notna(), UNLABELED).astype(str)


def _present(given: pd.DataFrame, modality: str, path: Path) -> np.ndarray:
    name = f"present_{modality}"
    if name not in given:
        return np.ones(len(given), dtype=bool)
    _refuse_missing(given[name], path)
    if not pd.api.types.is_bool_dtype(given[name]):
        raise ValueError(f"{path}: column {name!r} must be boolean; got {given[name].dtype}")
    return given[name].to_numpy(dtype=bool)


def _plain(column: pd.Series, path: Path) -> pd.Series:
    """A column of texts, numbers or booleans, or a sentence that says it is none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.astype("string")
    return _texts(column, path)


def _texts(column: pd.Series, path: Path) -> pd.Series:
    known = column.dropna()
    wrong = known[known.map(lambda value: isinstance(value, (list, tuple, dict, bytes, np.ndarray)))]
    if len(wrong):
        raise ValueError(
            f"{path}: column {column.name!r} holds {type(wrong.iloc[0]).__name__} in row {wrong.index[0]}; only texts, "
            "numbers and booleans are kept: drop it, or write files and give their paths"
        )
    return column.astype(object).where(column.notna(), None).map(_text).astype("string")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _check_items(column: pd.Series, items: Path, path: Path) -> None:
    """Pictures and sounds must be files below the folder of the items.

    Raises:
        ValueError: a path leads out of it.
        FileNotFoundError: files are missing.
    """
    known = column.dropna()
    files = known[known.map(media_type) != ""]
    gone = []
    for item in tqdm(files, desc=f"{column.name} files", unit="file", disable=len(files) < _MANY):
        try:
            inside = resolve_inside(items, item)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: column {column.name!r}: {error}") from None
        if not inside.is_file():
            gone.append(item)
    if gone:
        raise FileNotFoundError(
            f"{path}: {len(gone)} of {len(files)} files in column {column.name!r} do not exist below {items}, the "
            f"first is {gone[0]!r}: name their folder with --root, or leave these items out"
        )


def _refuse_missing(column: pd.Series, path: Path) -> None:
    missing = column.isna()
    if missing.any():
        raise ValueError(
            f"{path}: column {column.name!r} has {int(missing.sum())} missing values, the first in row "
            f"{int(missing.to_numpy().argmax())}: fill them"
        )
