"""Your own vectors as `Embeddings`: arrays in memory, or one `.npz` file.

    labkit.data.from_arrays({"image": x, "text": y}, labels=["cat", "dog", ...])

Row i of every array is the same sample. What does not fit (NaN, other row counts, duplicate keys, wrong shape) is
refused by `Embeddings` with a sentence that names the modality.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from labkit.types import Embeddings

if TYPE_CHECKING:
    from torch import Tensor

RESERVED = ("key", "label", "group")
MASK = "present_"


def from_arrays(
    arrays: Mapping[str, np.ndarray | Tensor],
    *,
    keys: Sequence[str] | np.ndarray | None = None,
    labels: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    present: Mapping[str, np.ndarray] | None = None,
) -> Embeddings:
    """Embeddings from one array [n, d] per modality, converted to float32.

    Args:
        arrays: modality -> real numbers [n, d]; d may differ between modalities.
        keys: n unique sample ids; "0", "1", ... by default.
        labels: class of each sample: names (None for unknown), or integers (-1 for unknown).
        groups: what belongs together in splits and retrieval: names or integers; each sample alone by default.
        present: modality -> which samples have it; all by default. Rows of absent items may hold anything.

    Raises:
        ValueError: no array, wrong shape, row counts that differ, NaN, duplicate keys, a missing group.
        TypeError: an array that does not hold real numbers.
    """
    if not arrays:
        raise ValueError("from_arrays got no arrays; give at least one modality, e.g. {'image': x, 'text': y}")
    z = {modality: _real(values, modality) for modality, values in arrays.items()}
    first = next(iter(z))
    n = len(z[first])
    for modality, values in z.items():
        if len(values) != n:
            raise ValueError(
                f"{modality!r} has {len(values)} rows but {first!r} has {n}; row i of every array must be the same "
                "sample: reorder or drop rows, or fill absent ones and mark them in `present`"
            )
    label, label_names = (None, ()) if labels is None else _codes(np.asarray(labels))
    group = None if groups is None else _codes(np.asarray(groups))[0]
    if group is not None and (group < 0).any():
        raise ValueError("groups has missing or negative entries; give each sample a name or an integer from 0 on")
    return Embeddings(
        key=np.arange(n).astype(str) if keys is None else np.asarray(keys).astype(str),
        z=z,
        present={m: torch.as_tensor(np.asarray(mask)) for m, mask in (present or {}).items()},
        label=label,
        group=group,
        label_names=label_names,
    )


def from_npz(path: str | Path) -> Embeddings:
    """Embeddings from an `.npz` file: one array per modality, and optionally `key`, `label`, `group`.

    An array `present_<modality>` of booleans marks absent items. Nothing is unpickled.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an `.npz` file, an array of Python objects, or arrays that do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; np.savez({path.name!r}, image=x, text=y) writes such a file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read as .npz ({error}); write it with np.savez and plain arrays, no Python objects"
        ) from error
    modalities = {m: v for m, v in stored.items() if m not in RESERVED and not m.startswith(MASK)}
    if not modalities:
        raise ValueError(
            f"{path} holds {sorted(stored) or 'nothing'}, but no modality; add arrays like image=x, text=y"
        )
    return from_arrays(
        modalities,
        keys=stored.get("key"),
        labels=stored.get("label"),
        groups=stored.get("group"),
        present={m.removeprefix(MASK): v for m, v in stored.items() if m.startswith(MASK)},
    )


def _real(values: np.ndarray | Tensor, modality: str) -> Tensor:
    if not isinstance(values, torch.Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{modality!r} must hold real numbers; got an array of {array.dtype}")
        values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if values.ndim != 2:
        raise ValueError(
            f"{modality!r} must have shape [n, d], one row per sample; got {tuple(values.shape)}: "
            "reshape it, e.g. x.reshape(len(x), -1)"
        )
    return values.detach().float()


def _codes(values: np.ndarray) -> tuple[Tensor, tuple[str, ...]]:
    """Integers as they are; names as positions in their sorted list, missing ones -1."""
    if values.dtype.kind in "iu":
        return torch.as_tensor(values.astype(np.int64)), ()
    codes, names = pd.factorize(values, sort=True)
    return torch.as_tensor(codes.astype(np.int64)), tuple(map(str, names))
