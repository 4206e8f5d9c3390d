"""`labkit claims`: the claims of the proposals and their verdicts, from the committed results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit._console import clear_errors

if TYPE_CHECKING:
    import pandas as pd

EPILOG = "Example: labkit claims --proposal A"
SHOWN = ("id", "verdict", "effect", "low", "high", "p_holm", "p_against", "margin", "expect", "seeds", "n", "study")


def claims(
    proposal: Annotated[str, typer.Option(help="A, B or C; all by default.")] = "",
    file: Annotated[Path | None, typer.Option(help="File of claims; studies/claims.yaml by default.")] = None,
) -> None:
    """Say of every claim of the proposals whether it holds, does not hold, is undecided, or is not tested and why."""
    with clear_errors():
        from labkit import claims as hypotheses

        if proposal not in ("", "A", "B", "C"):
            raise ValueError(f"--proposal is A, B or C; got {proposal!r}")
        stated = hypotheses.load(file)
        # corrected over the whole file, whatever is shown of it
        table = hypotheses.evaluate(stated, hypotheses.committed(stated))
        _print(table[table["proposal"] == proposal] if proposal else table)


def _print(table: pd.DataFrame) -> None:
    tested = table[table["verdict"] != "not tested"]
    if len(tested):
        shown = tested.loc[:, list(SHOWN)].astype({"seeds": int, "n": int}).round(3)
        typer.echo(shown.to_string(index=False))
        typer.echo("\neffect: mean with its 95 % interval; p: corrected by Holm over all tested claims of the file")
        typer.echo("p_holm: for the claim; p_against: for its effect being smaller than the margin")
        for kind, rows in tested.groupby("kind"):
            typer.echo(f"interval of {len(rows)}: {kind}")
    silent = table[table["verdict"] == "not tested"]
    if len(silent):
        typer.echo("\nnot tested:" if len(tested) else "not tested:")
        for row in silent.to_dict("records"):
            typer.echo(f"  {row['id']}: {row['reason']}")
    counts = table["verdict"].value_counts()
    typer.echo("\n" + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + f" of {len(table)} claims")
