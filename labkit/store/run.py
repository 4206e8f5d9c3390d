"""One run: its samples, scores, per-point fields, pictures, vectors, couplings, topology and selections.

    run = Store().open("clip-s0")
    run.scores()                                                # DataFrame
    run.field("recall_at_10", where={"corruption": "none"})
    run.embedding("image")                                      # memory-mapped, rows as in run.points()

What is absent raises `NotComputedError`, which names the command that computes it; a truncated file raises
`StoreError`, which says how to recompute it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import pandas as pd

from .folder import RunFolder, file_name
from .manifest import now, plain
from .names import Step, check_name, check_part, check_step, resolve_inside
from .tables import (
    FIELD_COLUMNS,
    FIELD_IDENTITY,
    SCORE_IDENTITY,
    TOPOLOGY_SCHEMA,
    merge,
    modalities_of,
    tidy,
    tidy_field,
    tidy_points,
    tidy_scores,
    tidy_topology,
    without,
)

if TYPE_CHECKING:
    from jaxtyping import Float

_FLOAT16_MAX = float(np.finfo(np.float16).max)


class Run(RunFolder):
    """A run of the store; made by `Store.create` and `Store.open`."""

    def write_points(self, points: pd.DataFrame) -> None:
        """Store the samples: key, split, group, label and, per modality `m`, item column `m` and `present_m`.

        Raises:
            ValueError: a column is missing or keys are not unique.
        """
        table = tidy_points(points)
        self._manifest.publish(
            {"points.parquet": lambda path: table.to_parquet(path, index=False)},
            facts={"n": len(table), "modalities": modalities_of(table)},
        )

    def points(self) -> pd.DataFrame:
        """The samples, one per row."""
        return self._read_table("points.parquet")

    def item_path(self, key: str, modality: str) -> Path | None:
        """File of a sample's raw item, None where the sample has none.

        Raises:
            ValueError: unknown key or modality, or the item lies outside the run's data folder.
            FileNotFoundError: the file is gone.
        """
        points = self._read_table("points.parquet", {"key": key})
        if f"present_{modality}" not in points.columns:
            raise ValueError(f"no modality {modality!r} in run {self.id}; it has {modalities_of(points)}")
        if points.empty:
            raise ValueError(f"no sample {key!r} in run {self.id}")
        item = points[modality].iloc[0]
        if pd.isna(item) or item == "":
            return None
        path = resolve_inside(self.data_root, item)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: put the data back under {self.data_root}")
        return path

    def write_scores(self, scores: pd.DataFrame, replace: Mapping[str, object] | None = None) -> None:
        """Add scores; a row replaces the stored one of the same identity (`SCORE_IDENTITY`).

        Args:
            scores: one row per number, columns `SCORE_COLUMNS`.
            replace: column -> value: first drop every stored row with these values, e.g. all of an earlier curve;
                `{}` drops everything.

        Raises:
            ValueError: wrong columns or types, or a row occurs twice.
        """
        new = tidy_scores(scores)
        with self._manifest.locked():
            old = self.scores() if self.has("scores") else None
            if old is not None and replace is not None:
                old = without(old, replace)
            self._write_table("scores.parquet", merge(old, new, SCORE_IDENTITY))

    def scores(self) -> pd.DataFrame:
        """All scores of the run."""
        return self._read_table("scores.parquet")

    def write_field(self, metric: str, step: Step, field: pd.DataFrame) -> None:
        """Add per-point values, columns `FIELD_COLUMNS`; stored points of the same conditions are replaced.

        A condition is what `FIELD_IDENTITY` names: split, source, target and the corruption.

        Raises:
            ValueError: wrong columns or types, or a point occurs twice.
        """
        name = file_name("fields", metric, step, ".parquet")
        new = tidy_field(field)
        with self._manifest.locked():
            old = self._read_table(name) if name in self.files else None
            self._write_table(name, merge(old, new, FIELD_IDENTITY))

    def field(
        self, metric: str, step: Step | None = None, *, where: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """Per-point values of `metric`.

        Args:
            metric: its name.
            step: the last stored one by default.
            where: column -> value; only rows with these values are read.

        Raises:
            NotComputedError: it is not stored.
            ValueError: `where` names an unknown column.
        """
        unknown = sorted(set(where or {}) - set(FIELD_COLUMNS))
        if unknown:
            raise ValueError(f"a field has no column {unknown}; its columns are {list(FIELD_COLUMNS)}")
        return self._read_table(self._find("fields", metric, step, ".parquet"), where)

    def write_projection(self, name: str, step: Step, projection: pd.DataFrame) -> None:
        """Store 2-D positions: key, modality, x, y and trust in [0, 1] (NaN where unknown).

        Raises:
            ValueError: wrong columns or types.
        """
        table = tidy(projection, ("key", "modality", "x", "y", "trust"), "a projection")
        table = table.astype(dict.fromkeys(("x", "y", "trust"), "float32"))
        self._write_table(file_name("projections", name, step, ".parquet"), table)

    def projection(self, name: str, step: Step | None = None) -> pd.DataFrame:
        """Positions of the projection `name` at `step` (the last stored one by default)."""
        return self._read_table(self._find("projections", name, step, ".parquet"))

    def write_embedding(self, modality: str, step: Step, array: Float[np.ndarray, "n d"], float16: bool = True) -> None:
        """Store vectors, rows in the order of `points`.

        Args:
            modality: whose vectors.
            step: "raw" for the space before alignment.
            array: one row per point.
            float16: store half precision, unless a value is too large for it.

        Raises:
            ValueError: the points are not written yet, or the rows do not match them.
        """
        values = np.asarray(array)
        n = self.info.get("n")
        if n is None:
            raise ValueError(f"write the points of run {self.id} before its embeddings, whose rows follow them")
        if values.ndim != 2 or len(values) != n or not np.issubdtype(values.dtype, np.floating):
            raise ValueError(
                f"embedding of {modality!r} must be floats of shape [{n}, d], one row per point; got {values.dtype} "
                f"of shape {list(values.shape)}"
            )
        too_large = bool((np.abs(values) > _FLOAT16_MAX).any())
        stored = values.astype(np.float16 if float16 and not too_large else np.float32)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, stored, allow_pickle=False)

        self._manifest.publish({file_name("embeddings", modality, step, ".npy"): write})

    def embedding(
        self, modality: str, step: Step = "final", *, mmap_mode: Literal["r"] | None = "r"
    ) -> Float[np.ndarray, "n d"]:
        """Vectors of `modality`; memory-mapped and read-only, or in memory with `mmap_mode=None`."""
        path = self.path(file_name("embeddings", modality, step, ".npy"))
        with self._readable(path) as file:
            return np.load(file, allow_pickle=False) if mmap_mode is None else _memory_map(file)

    def write_coupling(
        self, a: str, b: str, solver: str, epsilon: float, step: Step, coupling: pd.DataFrame, meta: Mapping[str, Any]
    ) -> None:
        """Store the largest entries of a coupling.

        Args:
            a: modality of the rows.
            b: modality of the columns.
            solver: what solved it.
            epsilon: the regularization.
            step: of the embeddings.
            coupling: row_key, col_key, mass.
            meta: at least `converged`, `marginal_error` and `mass_kept`, the share of the mass that is stored.

        Raises:
            ValueError: wrong columns, or `meta` is incomplete.
        """
        lacking = sorted({"converged", "marginal_error", "mass_kept"} - set(meta))
        if lacking:
            raise ValueError(f"meta of a coupling lacks {lacking}")
        table = tidy(coupling, ("row_key", "col_key", "mass"), "a coupling")
        record = {"source": a, "target": b, "solver": solver, "epsilon": float(epsilon), "step": check_step(step)}
        text = json.dumps(plain({**meta, **record}), indent=1)
        stem = file_name("couplings", _coupling_name(a, b, solver, epsilon), step, "")
        self._manifest.publish(
            {
                f"{stem}.parquet": lambda path: table.to_parquet(path, index=False),
                f"{stem}.json": lambda path: path.write_text(text, encoding="utf-8"),
            }
        )

    def coupling(
        self, a: str, b: str, solver: str, epsilon: float, step: Step | None = None
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Entries of a coupling, and its record, at `step` (the last stored one by default)."""
        name = self._find("couplings", _coupling_name(a, b, solver, epsilon), step, ".parquet")
        return self._read_table(name), self._read_json(f"{name.removesuffix('.parquet')}.json")

    def couplings(self) -> pd.DataFrame:
        """Records of the stored couplings, one per row: source, target, solver, epsilon, step, converged, ..."""
        names = [name for name in self.files if name.startswith("couplings/") and name.endswith(".json")]
        return pd.DataFrame([self._read_json(name) for name in names])

    def write_topology(self, modality: str, step: Step, table: pd.DataFrame, meta: Mapping[str, Any]) -> None:
        """Store the bars of a modality's persistent homology.

        Args:
            modality: whose.
            step: of the embeddings; "raw" for the space before alignment.
            table: dimension, birth, death (infinite for what never dies) and keys, the samples that show the bar.
            meta: at least `scale` (unit of birth and death), `n` (samples), `sampled` (whether on landmarks only),
                `landmarks` (their keys) and `covering_radius`.

        Raises:
            ValueError: wrong columns, types or bars, or `meta` is incomplete.
        """
        lacking = sorted({"scale", "n", "sampled", "landmarks", "covering_radius"} - set(meta))
        if lacking:
            raise ValueError(f"meta of topology lacks {lacking}")
        bars = tidy_topology(table)
        record = {**meta, "modality": modality, "step": check_step(step)}
        text = json.dumps(plain(record), indent=1)
        stem = file_name("topology", modality, step, "")
        self._manifest.publish(
            {
                f"{stem}.parquet": lambda path: bars.to_parquet(path, index=False, schema=TOPOLOGY_SCHEMA),
                f"{stem}.json": lambda path: path.write_text(text, encoding="utf-8"),
            }
        )

    def topology(self, modality: str, step: Step | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Bars of a modality, and what they were computed on, at `step` (the last stored one by default)."""
        name = self._find("topology", modality, step, ".parquet")
        return self._read_table(name), self._read_json(f"{name.removesuffix('.parquet')}.json")

    def write_selection(self, name: str, keys: Sequence[str]) -> None:
        """Save the samples `keys` as the selection `name`."""
        text = json.dumps({"name": name, "created": now(), "keys": [str(key) for key in keys]}, indent=1)
        self._manifest.publish({_selection_file(name): lambda path: path.write_text(text, encoding="utf-8")})

    def selection(self, name: str) -> list[str]:
        """Keys of the selection `name`."""
        return self._read_json(_selection_file(name))["keys"]

    def delete_selection(self, name: str) -> None:
        """Remove the selection `name`; nothing happens if there is none."""
        self._manifest.withdraw(_selection_file(name))

    def selections(self) -> list[str]:
        """Names of the saved selections."""
        return [Path(file).stem for file in self.files if file.startswith("selections/")]


def _coupling_name(a: str, b: str, solver: str, epsilon: float) -> str:
    parts = (check_part(a, "modality"), check_part(b, "modality"), check_part(solver, "solver"))
    return f"{'-'.join(parts)}-{epsilon:g}"


def _memory_map(file: BinaryIO) -> np.memmap:
    """Map the array in an open npy file (`np.load` would open its path twice)."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"npy format {version} instead of 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _selection_file(name: str) -> str:
    return f"selections/{check_name(name, 'selection')}.json"
