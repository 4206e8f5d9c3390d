"""`labkit robustness`: corruptions and attacks added to stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit._console import clear_errors, names

if TYPE_CHECKING:
    from labkit.robustness import Measured

EPILOG = "Example: labkit robustness clip-s0 gotma-s0 --corruption gaussian_noise,motion_blur --severity 1,3,5"


def robustness(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or their beginnings.")],
    corruption: Annotated[
        str,
        typer.Option(
            help="Of features or raw items, separated by commas; by default all of raw items that fit the runs."
        ),
    ] = "",
    attack: Annotated[
        str,
        typer.Option(
            help="ATTACK[_NORM][_INPUTS][_targeted], separated by commas, e.g. pgd,apgd_l2,pgd_linf_features_targeted: "
            "fgsm, pgd, apgd or random; linf or l2; pixels, where there are pictures, or features."
        ),
    ] = "",
    attacked: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples of each modality that are attacked; as in the run's configuration by default."
        ),
    ] = None,
    severity: Annotated[
        str,
        typer.Option(help="1 to 5, separated by commas; by default all, of attacks those of the run's configuration."),
    ] = "",
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Independent draws of each; by default as in the run's configuration, of attacks 1."),
    ] = None,
    modality: Annotated[
        str, typer.Option(help="Whose items are corrupted, one at a time, separated by commas; all by default.")
    ] = "",
    device: Annotated[str, typer.Option(help="Where the encoders run: cpu, cuda or auto.")] = "auto",
    runs: Annotated[Path | None, typer.Option("--runs", help="Folder of the runs, as in the other commands.")] = None,
) -> None:
    """Measure stored runs under corruptions of their test items, or attacks; what a run has is not measured again.

    Corrupted pictures, sentences and sounds are encoded once for all runs and kept in $LABKIT_CACHE, or in
    labkit-cache/ beside the folder of the runs; a command that was interrupted goes on where it was. Attacks raise the
    error of one run as far as a budget lets them, so nothing of theirs is shared: on pictures, about 1.5 seconds a
    sample, budget and modality searched.
    """
    with clear_errors():
        from labkit.conditions import HARDER
        from labkit.robustness import measure, measure_attacks
        from labkit.store import Store, StoreError

        store, failed = Store(runs), 0
        chosen, attacks = names(corruption), names(attack)
        how: dict[str, Any] = {"draws": draws, "modalities": names(modality) or None, "device": device}
        hard = _severities(severity)
        if attacked and not attacks:
            raise ValueError("--attacked is the number of samples of --attack; name an attack, e.g. --attack pgd")
        for run in [store.open(i) for i in run_ids]:  # an unknown one is told before hours are spent on the others
            try:
                if chosen or not attacks:
                    _print(measure(run, chosen, severities=hard or HARDER, **how))
                if attacks:
                    _print(measure_attacks(run, attacks, samples=attacked, severities=hard, **how))
            except (ValueError, StoreError) as error:
                if len(run_ids) == 1:
                    raise
                failed += 1
                typer.echo(f"error: {error}", err=True)
        if failed:
            typer.echo(f"{failed} of {len(run_ids)} runs could not be measured", err=True)
            raise typer.Exit(1)


def _severities(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise ValueError(f"--severity is {text!r}; give whole numbers from 1 to 5, separated by commas") from None


def _print(found: Measured) -> None:
    table = found.table.assign(direction=found.table["source"] + " -> " + found.table["target"])
    table["severity"] = table["severity"].astype(int)
    wide = table.pivot_table(
        index=["corruption", "corrupted", "direction"], columns="severity", values="value", sort=False
    )
    shown = wide[sorted(wide.columns)].round(3).reset_index().rename_axis(columns=None)
    typer.echo(f"{found.run}: recall@10 by severity (0: the clean result)")
    typer.echo(shown.to_string(index=False))
    typer.echo(f"conditions: {found.conditions} measured, {found.stored} stored before")
    for one in found.skipped:
        typer.echo(f"skipped: {one}", err=True)
