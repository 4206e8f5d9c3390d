"""The command line: `labkit run`, `study`, `robustness`, `claims`, `runs`, `data`, `diagnose`, `tune`, `demo`, ...

Heavy imports happen inside the commands, so that `labkit --help` answers at once. Exit codes: 0 done, 1 something that
was asked for failed, 2 a wrong argument. What users can mend is answered with one sentence, a bug with its traceback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit import _claims_command, _diagnose_command, _import_command, _robustness_command
from labkit._console import assignments, clear_errors, names, refuse_both

if TYPE_CHECKING:
    import pandas as pd

    from labkit.study import Outcome, Study

app = typer.Typer(
    help="A lab for cross-modal manifold alignment.", no_args_is_help=True, pretty_exceptions_enable=False
)
study_app = typer.Typer(help="Grids of runs through papermill: run, status, report.", no_args_is_help=True)
runs_app = typer.Typer(help="The runs that are stored: list, show, compare.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(study_app, name="study")
app.add_typer(runs_app, name="runs")
app.add_typer(data_app, name="data")
app.command(epilog=_diagnose_command.EPILOG)(_diagnose_command.diagnose)
app.command(epilog=_claims_command.EPILOG)(_claims_command.claims)
app.command(epilog=_robustness_command.EPILOG)(_robustness_command.robustness)
app.command("import", epilog=_import_command.EPILOG)(_import_command.import_embeddings)

Root = Annotated[
    Path | None,
    typer.Option("--runs", help="Folder of the runs; by default $LABKIT_RUNS, or runs/ here or in a folder above."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Notebooks at a time; one per core by default.")]
StudyName = Annotated[str, typer.Argument(help="Name in studies/, or the path of a YAML file.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]


@app.command(epilog="Example: labkit run --variant gotma --modalities image,text --missing 0.3 --option w_ot=3")
def run(
    context: typer.Context,
    stored: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a stored run, or its beginning: take its configuration."),
    ] = None,
    variant: Annotated[str, typer.Option(help="Method of alignment; an unknown name lists the nearest.")] = "clip",
    modalities: Annotated[str, typer.Option(help="Two or more, separated by commas.")] = "image,text,speech_fr",
    dataset: Annotated[str, typer.Option(help="Bundled data set, or the path of an .npz file.")] = "stamps",
    missing: Annotated[float, typer.Option(help="Share of training items dropped at random, 0 <= x < 1.")] = 0.0,
    data: Annotated[
        list[str] | None,
        typer.Option(help="name=value, e.g. missing_by=label, pairs=0.1, shuffled=0.2, domain.test=photo."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of split, initialisation and batches.")] = 0,
    option: Annotated[list[str] | None, typer.Option(help="name=value of a variant's hyper-parameter.")] = None,
    training: Annotated[list[str] | None, typer.Option(help="name=value, e.g. epochs=20.")] = None,
    device: Device = "auto",
    rerun: Annotated[bool, typer.Option(help="Compute a complete run anew.")] = False,
    runs: Root = None,
) -> None:
    """Train, evaluate and store one run; a complete one is not computed again."""
    with clear_errors():
        from labkit import run as runner
        from labkit.config import RunConfig, parse
        from labkit.store import Store

        values = {
            "data": {"dataset": dataset, "modalities": names(modalities), "missing": missing} | assignments(data),
            "variant": variant,
            "options": assignments(option),
            "training": assignments(training),
            "seed": seed,
        }
        if stored is None:
            config = parse(RunConfig, values, what="labkit run")
        else:
            refuse_both(context, allowed=("stored", "device", "rerun", "runs"))
            config = runner.stored_config(Store(runs), stored)
        done = runner.execute(config, root=runs, device=device, rerun=rerun)
        typer.echo(_score_table(done.scores()).to_string(index=False))
        typer.echo(f"{done.id}: stored in {done.folder}")


@app.command(epilog="Example: labkit demo --jobs 2")
def demo(jobs: Jobs = None, runs: Root = None) -> None:
    """Run the study `quickstart` on the bundled data, print the leaderboard, write the report."""
    with clear_errors():
        failed = _run_study("quickstart", jobs=jobs, root=runs)
        typer.echo(
            "\nExplore:\n  make dashboard   or   panel serve dashboards --show\n  make lab         or   jupyter lab"
        )
        raise typer.Exit(1 if failed else 0)


@study_app.command("run", epilog="Example: labkit study run quickstart --jobs 2")
def study_run(
    study: StudyName,
    jobs: Jobs = None,
    rerun: Annotated[bool, typer.Option(help="Execute complete runs anew.")] = False,
    runs: Root = None,
) -> None:
    """Execute what is not complete yet, then compute the 2-D frames and the report."""
    with clear_errors():
        raise typer.Exit(1 if _run_study(study, jobs=jobs, root=runs, rerun=rerun) else 0)


@study_app.command("status", epilog="Example: labkit study status quickstart")
def study_status(study: StudyName, runs: Root = None) -> None:
    """Which runs of the study are complete, failed, interrupted or made by older code; the sums come last."""
    with clear_errors():
        from labkit import study as studies

        chosen = studies.load(study)
        table = studies.status(chosen, root=runs)
        typer.echo(table.drop(columns="error").round({"seconds": 0}).to_string(index=False, na_rep=""))
        for row in table.loc[table["status"] == "failed"].to_dict("records"):
            typer.echo(f"{row['run']} failed: {row['error']}")
        _say_untuned(chosen)
        typer.echo(studies.counts(table))


@study_app.command("report", epilog="Example: labkit study report quickstart")
def study_report(study: StudyName, runs: Root = None) -> None:
    """Print the leaderboards of the study and write one self-contained report.html from its complete runs."""
    with clear_errors():
        from labkit import study as studies

        chosen = studies.load(study)
        _print_boards(chosen, runs)
        typer.echo(f"report: {_write_report(chosen, runs)}")
        typer.echo(studies.counts(studies.status(chosen, root=runs)))


@study_app.command("export", epilog="Example: labkit study export quickstart")
def study_export(study: StudyName, runs: Root = None) -> None:
    """Copy the study's scores into results/ and its leaderboard into docs/studies/, to be read in a clean checkout."""
    with clear_errors():
        from labkit import study as studies

        chosen = studies.load(study)
        folder, page = studies.export(chosen, runs)
        typer.echo(f"written: {folder} and {page}")
        typer.echo(studies.counts(studies.status(chosen, root=runs)))


@runs_app.command("list", epilog="Example: labkit runs list")
def runs_list(runs: Root = None) -> None:
    """One line per run."""
    with clear_errors():
        from labkit.store import Store

        store = Store(runs)
        table = store.table()
        if table.empty:
            typer.echo(f"no runs in {store.root}: `labkit run` or `labkit demo` makes some")
        else:
            table.loc[(table["status"] == "running") & ~table["alive"], "status"] = "interrupted"
            columns = ["id", "variant", "seed", "status", "n", "modalities", "created"]
            typer.echo(table[columns].to_string(index=False, na_rep=""))
        for problem in store.problems:
            typer.echo(f"not readable: {problem}", err=True)


@runs_app.command("show", epilog="Example: labkit runs show gotma-s0")
def runs_show(run_id: Annotated[str, typer.Argument(help="Id, or its beginning.")], runs: Root = None) -> None:
    """Status, configuration and clean scores of a run."""
    with clear_errors():
        from labkit.store import Store

        found = Store(runs).open(run_id)
        info = found.info
        typer.echo(f"{found.id}  {info['status']}  {info['created']}")
        typer.echo(json.dumps(info["config"], indent=1))
        if info.get("error"):
            typer.echo(f"error: {info['error']}")
        if found.has("scores"):
            typer.echo(_score_table(found.scores()).to_string(index=False))


@runs_app.command("compare", epilog="Example: labkit runs compare clip-s0 gotma-s0 --metric mrr")
def runs_compare(
    first: Annotated[str, typer.Argument(help="Run id, or its beginning.")],
    second: Annotated[str, typer.Argument(help="The run it is compared with.")],
    metric: Annotated[str, typer.Option(help="Metric that is compared point by point.")] = "recall_at_10",
    runs: Root = None,
) -> None:
    """Paired difference (first - second) in every direction, with intervals over caption groups."""
    with clear_errors():
        from labkit.store import Store

        typer.echo(_compare(Store(runs), first, second, metric).to_string(index=False))


@data_app.command("info", epilog="Example: labkit data info stamps")
def data_info(
    dataset: Annotated[str, typer.Argument(help="Bundled data set, or the path of an .npz file.")] = "stamps",
) -> None:
    """What a data set holds."""
    with clear_errors():
        from labkit import data

        embeddings = data.load(dataset)
        typer.echo(f"{dataset}: {len(embeddings)} samples, {len(set(embeddings.groups.tolist()))} caption groups")
        for m in embeddings.modalities:
            present = int(embeddings.present[m].sum())
            typer.echo(f"  {m:12s} {embeddings.z[m].shape[1]:5d} features   {present} present")
        if embeddings.label is not None:
            labelled = embeddings.label[embeddings.label >= 0]
            classes = embeddings.label_names or sorted(set(labelled.tolist()))
            typer.echo(f"  labels: {', '.join(map(str, classes))} ({len(labelled)} samples)")
        sizes = {name: len(rows) for name, rows in data.split(embeddings, 0).items()}
        typer.echo(f"  split of seed 0: {', '.join(f'{k} {v}' for k, v in sizes.items())}")


@app.command(epilog="Example: labkit encode --modalities image,text --out features.safetensors")
def encode(
    dataset: Annotated[str, typer.Option(help="Bundled data set.")] = "stamps",
    modalities: Annotated[str, typer.Option(help="Which ones, separated by commas.")] = "image,text",
    out: Annotated[Path | None, typer.Option(help="File to write the features to, .safetensors.")] = None,
    device: Device = "auto",
) -> None:
    """Encode the raw items of a data set anew, and compare with the features that are bundled."""
    with clear_errors():
        from labkit import encode as encoding
        from labkit.run import pick_device

        if out is not None and not out.absolute().parent.is_dir():
            raise FileNotFoundError(f"{out.absolute().parent} does not exist: make it, or write elsewhere")
        features = encoding.encode_dataset(dataset, names(modalities), out=out, device=pick_device(device))
        for modality, difference in encoding.difference_to_bundled(features, dataset).items():
            n, d = features[modality].shape
            typer.echo(f"{modality}: {n} x {d}, largest difference to the bundled features {difference:.1e}")
        if out is not None:
            typer.echo(f"written: {out}")


@app.command(epilog="Example: labkit tune baselines --trials 16 --seeds 3 --out results/tuning/baselines.csv")
def tune(
    study: StudyName,
    trials: Annotated[int, typer.Option(min=1, help="Draws per variant; the first is its defaults.")] = 16,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds per trial: the study's first; all by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Record, .csv; it grows by each trial, and the same command continues it.")
    ] = None,
    only: Annotated[str, typer.Option(help="Variants, separated by commas; all of the study by default.")] = "",
    jobs: Jobs = None,
) -> None:
    """Search the hyper-parameters of every variant with one budget, on validation samples only."""
    with clear_errors():
        import yaml

        from labkit import study as studies
        from labkit import tune as tuning

        chosen = studies.load(study)
        table = tuning.tune(chosen, trials=trials, seeds=seeds, jobs=jobs, only=names(only), record=out)
        top = table.sort_values("score", ascending=False).drop_duplicates("variant").sort_index()
        typer.echo(top[["variant", "trial", "score", "score_sd", "seeds"]].to_string(index=False))
        told = {name: {"options": b.options, "training": b.training} for name, b in studies.best(table).items()}
        typer.echo("\nbest of each:")
        typer.echo(yaml.safe_dump(told, sort_keys=False))
        failed, spent = int(table["score"].isna().sum()), table["seconds"].sum() / 60
        typer.echo(f"trials: {len(table)}, failed: {failed}; {spent:.1f} minutes of processes")
        if out is not None:
            typer.echo(
                f"written: {out}; a study with `tuned: {out.stem if out.parent.name == 'tuning' else out}` uses it"
            )


@app.command(epilog="Example: labkit project clip-s0 gotma-s0")
def project(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Runs; all complete ones by default.")] = None,
    runs: Root = None,
) -> None:
    """Compute the 2-D frames of runs that lack them: UMAP, t-SNE and PCA, with and without the gap, at every kept step.

    One process for all of them, for the compilation of UMAP takes 20 s.
    """
    with clear_errors():
        from labkit import frames
        from labkit.store import Store

        store = Store(runs)
        found = [store.open(i) for i in run_ids] if run_ids else store.runs()
        for sentence in frames.add_frames([r for r in found if r.status == "complete"]):
            typer.echo(sentence, err=True)


def _run_study(name: str, *, jobs: int | None, root: Path | None, rerun: bool = False) -> list[Outcome]:
    """Run, project, report and print; the outcomes that failed."""
    from labkit import frames
    from labkit import study as studies
    from labkit.store import Store

    chosen = studies.load(name)
    _say_untuned(chosen)
    outcomes = studies.run(chosen, root=root, jobs=jobs, rerun=rerun)
    failed = [o for o in outcomes if o.status != "complete"]
    store = Store(root)
    complete = [store.open(o.run_id) for o in outcomes if o.status == "complete"]
    # one map per variant is what people look at; `labkit project` makes the others
    frames.add_frames(list({r.info["variant"]: r for r in reversed(complete)}.values()), ("umap",), ("raw",))
    typer.echo("")
    if complete:
        _print_boards(chosen, root)
        report = store.root / "report.html"
        if not _is_current(report, chosen, complete):
            report = _write_report(chosen, root)
        typer.echo(f"\nruns:   {store.root}\nreport: {report}")
    if failed:
        typer.echo(f"{len(failed)} of {len(outcomes)} runs failed; the same command tries them again:", err=True)
    for outcome in failed:
        typer.echo(f"  {outcome.run_id}: {outcome.error}", err=True)
    typer.echo(studies.counts(studies.status(chosen, root=root)))
    return failed


def _say_untuned(study: Study) -> None:
    if names := study.untuned():
        typer.echo(
            f"not tuned, so with their defaults: {', '.join(names)} (`labkit tune {study.tuned}` fills "
            f"results/tuning/{study.tuned}.csv)"
        )


def _is_current(report: Path, study: Study, complete: list[Any]) -> bool:
    """Whether the report is of this study and newer than all its runs."""
    if not report.is_file() or f"<title>labkit: {study.name}</title>" not in report.read_text(encoding="utf-8")[:1000]:
        return False
    return all(report.stat().st_mtime > (r.folder / "run.json").stat().st_mtime for r in complete)


def _print_boards(study: Study, root: Path | None) -> None:
    from labkit import study as studies

    for board in studies.leaderboards(*studies.tables(study, root)):
        typer.echo(f"recall@10, {board['direction'].iloc[0]} (chance {board['chance'].iloc[0]:.3f})")
        shown = board.drop(columns=["direction", "chance", "higher_is_better"]).rename(columns={"variant": "cell"})
        typer.echo(_rounded(shown).to_string(index=False) + "\n")


def _write_report(study: Study, root: Path | None) -> Path:
    from labkit import report
    from labkit import study as studies

    store, ids = studies.complete(study, root)
    scores, fields = (studies.by_cell(table) for table in studies.tables(study, root))
    return report.write(store, ids, title=study.name, description=study.description, tables=(scores, fields))


def _compare(store: Any, first: str, second: str, metric: str) -> pd.DataFrame:
    import pandas as pd

    from labkit import stats

    fields = []
    for run in (store.open(first), store.open(second)):
        run.field(metric)  # a run without the metric says so
        fields.append(store.fields(metric, [run.id], where={"corruption": "none"}))
    directions = (
        fields[0][["source", "target"]].drop_duplicates().merge(fields[1][["source", "target"]].drop_duplicates())
    )
    rows = []
    for source, target in directions.itertuples(index=False):
        a, b = (f[(f["source"] == source) & (f["target"] == target)] for f in fields)
        d = stats.paired_difference(a, b, on=("key",))
        paired = {"difference": d.difference, "low": d.low, "high": d.high, "p": d.p, "n": d.n_keys}
        rows.append({"source": source, "target": target, **paired, "unpaired": d.n_unpaired})
    if not rows:
        raise ValueError(f"runs {first!r} and {second!r} have no direction of {metric} in common")
    return _rounded(pd.DataFrame(rows))


def _score_table(scores: pd.DataFrame) -> pd.DataFrame:
    clean = scores[scores["corruption"] == "none"]
    columns = ["metric", "source", "target", "value", "low", "high", "n", "chance", "interval"]
    return _rounded(clean.loc[:, columns])


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return table.round({c: 3 for c in table.columns if table[c].dtype.kind == "f"})


if __name__ == "__main__":
    app()
