"""What a reader may ask with: a sentence, an uploaded picture, a row of an uploaded array.

Uploads are data of strangers: their size is bounded before anything is decoded, only a few formats are, and no pickle.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

MOST_LETTERS = 1_000
MOST_BYTES = 10_000_000
MOST_PIXELS = 20_000_000
FORMATS = ("PNG", "JPEG", "WEBP")


class QueryError(ValueError):
    """A query that cannot be used; the sentence says why and what can."""


def sentence(written: str) -> str:
    """A sentence without the space around it.

    Raises:
        QueryError: it is empty or too long.
    """
    found = written.strip()
    if not found:
        raise QueryError("Write what you look for.")
    if len(found) > MOST_LETTERS:
        raise QueryError(f"This text has {len(found):,} letters; at most {MOST_LETTERS:,} can be asked with.")
    return found


def picture(content: bytes) -> Any:
    """An uploaded picture in RGB; what is transparent becomes white.

    Raises:
        QueryError: too large, of another format, or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    _check_size(content)
    try:
        opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise QueryError(f"This is no picture that can be read; give one of {', '.join(FORMATS)}.") from error
    width, height = opened.size
    if width * height > MOST_PIXELS:
        raise QueryError(f"This picture has {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are read.")
    try:
        seen = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise QueryError(f"This picture is damaged ({error}); save it again.") from error
    ground = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(ground, seen).convert("RGB")


def array(content: bytes) -> np.ndarray:
    """An uploaded .npy array of numbers, [rows features]; one row where it has one dimension.

    Raises:
        QueryError: too large, no such file, damaged, or not of that form.
    """
    _check_size(content)
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError, EOFError) as error:
        raise QueryError("This is no .npy file; save the array with `numpy.save`.") from error
    if dtype.hasobject or dtype.kind not in "fiu":
        raise QueryError(f"This array holds {dtype}; give numbers, e.g. float32.")
    if len(shape) not in (1, 2):
        raise QueryError(f"This array has {len(shape)} dimensions; give one row, or [rows, features].")
    size = math.prod(shape)
    if size * dtype.itemsize != len(content) - file.tell():
        raise QueryError("This file is damaged: it does not have the numbers that it announces. Save it again.")
    if not size:
        raise QueryError("This array is empty.")
    values = np.frombuffer(content, dtype, size, file.tell()).reshape(shape, order="F" if fortran else "C")
    return np.atleast_2d(values).astype(np.float32)


def row_of(values: np.ndarray, row: int, width: int, modality: str) -> np.ndarray:
    """One row of an array, as features of a modality.

    Raises:
        QueryError: no such row, another number of features, or a value that is not finite.
    """
    if not 0 <= row < len(values):
        raise QueryError(f"There is no row {row}: the array has rows 0 to {len(values) - 1}.")
    if values.shape[1] != width:
        raise QueryError(f"Rows of this array have {values.shape[1]} numbers; features of {modality} have {width}.")
    if not np.isfinite(values[row]).all():
        raise QueryError(f"Row {row} has values that are not finite (NaN or infinite).")
    return values[row]


def _check_size(content: bytes) -> None:
    if len(content) > MOST_BYTES:
        raise QueryError(f"This file has {len(content):,} bytes; at most {MOST_BYTES:,} are read.")
