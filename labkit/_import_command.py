"""`labkit import`: a run of embeddings that were made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labkit._console import clear_errors

EPILOG = "Example: labkit import image=clip_image.npy text=clip_text.npy --points points.parquet --name clip"


def import_embeddings(
    embeddings: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODALITY=]FILE...",
            help="Vectors of one space, one file per modality, .npy or .parquet; called like the file by default.",
        ),
    ],
    points: Annotated[
        Path,
        typer.Option(
            help="The samples, .parquet: key, split, group, label, caption, and per modality a column of its items: "
            "texts, or paths of pictures and sounds. All are optional."
        ),
    ],
    name: Annotated[str, typer.Option(help="What it is called in lists and comparisons.")] = "imported",
    root: Annotated[
        Path | None, typer.Option(help="Folder of pictures and sounds; that of the points by default.")
    ] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of the runs, as in the other commands.")] = None,
) -> None:
    """Make a run of your own embeddings, which pages and commands that need no model work on.

    Rows of the files are those of the points, by a column `key` where a .parquet has one. The metrics are computed on
    the test samples, on a random sample of them where there are very many. Pictures and sounds stay where they are.
    """
    with clear_errors():
        files = _named(embeddings)
        from labkit.importing import LARGEST, import_run

        done = import_run(files, points, name=name, items=root, root=runs)
        table = done.points()
        tests = int((table["split"] == "test").sum())
        told = ", ".join(f"{m} {int(table[f'present_{m}'].sum()):,}" for m in done.info["modalities"])
        typer.echo(f"{done.id}: {len(table):,} samples ({told}), stored in {done.folder}")
        if tests > LARGEST:
            typer.echo(f"metrics are those of {LARGEST:,} random test samples of {tests:,}")
        typer.echo(f"maps: `labkit project {done.id}`; geometry, transport, topology: `labkit diagnose {done.id}`")


def _named(arguments: list[str]) -> dict[str, Path]:
    """Modality -> file, by `MODALITY=FILE` or the name of the file.

    Raises:
        ValueError: two files of one name.
    """
    files: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        modality, file = (name, Path(path)) if equals else (Path(argument).stem, Path(argument))
        if modality in files:
            raise ValueError(f"two files are called {modality!r}: name them, e.g. {modality}_a={argument}")
        files[modality] = file
    return files
