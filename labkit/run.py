"""One run: data in, a complete folder of the run store out.

    run = labkit.run.execute(RunConfig(variant="gotma", seed=1))

The folder's name is a hash of the resolved configuration: a complete run is returned as it is, an interrupted or failed
one is taken up again.
"""

from __future__ import annotations

import platform
import subprocess
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from labkit import __version__, attacks, conditions, data, frames, samples, variants
from labkit.attacked import Attacks, measure
from labkit.config import ConfigError, RunConfig, of_run, parse
from labkit.encoders.cache import cache_root
from labkit.encoders.raw_features import RawFeatures
from labkit.evaluate import evaluate
from labkit.frames import FINAL
from labkit.snapshots import Snapshots
from labkit.store import Run, Store
from labkit.train import Checkpoint
from labkit.train.monitor import Memory
from labkit.train.precision import mixed_precision


def resolve(config: RunConfig) -> RunConfig:
    """`config` with aliases resolved, paths absolute and every default of the variant written out.

    Raises:
        UnknownNameError: unknown data set, variant or corruption.
        ConfigError: an option that the variant does not have or accept, an encoder without features, or a corruption
            of raw items where there are none.
        ValueError: fewer modalities than the variant is defined for.
    """
    variant, dataset = variants.get(config.variant), samples.canonical(config.data.dataset)
    variant.check_modalities(config.data.modalities)
    options = parse(variant.Options, config.options, what=f"options of variant {config.variant!r}")
    corrupted = tuple(map(conditions.canonical, config.evaluation.corruptions))
    attacked = config.evaluation.attacks.model_copy(
        update={"names": tuple(map(attacks.canonical, config.evaluation.attacks.names))}
    )
    _check_raw_items(config, dataset, corrupted, attacked.names)
    return config.model_copy(
        update={
            "data": config.data.model_copy(
                update={
                    "dataset": dataset,
                    "options": data.check_options(config.data.dataset, config.data.options),
                    "encoders": data.check_encoders(
                        dataset, config.data.encoders, modalities=config.data.modalities, options=config.data.options
                    ),
                }
            ),
            "variant": variant.name(),
            "options": options.model_dump(mode="json"),
            "evaluation": config.evaluation.model_copy(update={"corruptions": corrupted, "attacks": attacked}),
        }
    )


def execute(
    config: RunConfig, *, root: Path | str | None = None, name: str = "", device: str = "auto", rerun: bool = False
) -> Run:
    """Train, evaluate and store one run.

    Args:
        config: what to run; completed by `resolve`.
        root: folder of the runs; `labkit.store.runs_root()` by default.
        name: what people call it, the variant by default; the seed is added.
        device: "cpu", "cuda", ... or "auto" for CUDA where there is one.
        rerun: compute a complete run anew.

    Returns:
        The complete run.

    Raises:
        UnknownNameError, ConfigError: the configuration names something that does not exist.
        ValueError: no such device or precision, or data that cannot be used.
        StoreError: the run folder cannot be written.
        Exception: whatever the variant raised; the run is marked failed with it.
    """
    config, where = resolve(config), pick_device(device)
    mixed_precision(config.training, where)  # a precision that the device does not have is refused before a run is made
    store = Store(root)
    if not rerun and (done := completed(store, config)) is not None:
        check_data(done)
        return done
    content = samples.load(config)
    run = store.create(
        config.run_id,
        name=f"{name or config.variant} seed {config.seed}",
        variant=config.variant,
        config=config.model_dump(mode="json"),
        seed=config.seed,
        data_root=samples.data_root(config),
        git=git_state(),
        environment=_environment()
        | {"data_sha256": samples.digest(config.data.dataset), "encoders": samples.encoder_names(config)},
        rerun=rerun,
    )
    if rerun:
        _training_file(run).unlink(missing_ok=True)
    try:
        _fill(run, config, content, where)
    except BaseException as error:
        if isinstance(error, Exception):  # whoever interrupts a run means to go on, an error would come again
            _training_file(run).unlink(missing_ok=True)
        run.fail(f"{type(error).__name__}: {error}")
        raise
    run.complete()
    _training_file(run).unlink(missing_ok=True)
    return run


def execute_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    *,
    root: Path | str | None = None,
    name: str = "",
    device: str = "auto",
    rerun: bool = False,
) -> list[Run]:
    """`execute` for several seeds of one configuration; one that fails does not stop the others.

    Returns:
        The complete runs; the traceback of every other one is printed.

    Raises:
        ValueError: no seeds.
        Exception: what the first seed raised, if none could be completed.
    """
    if not seeds:
        raise ValueError("no seeds; give at least one, e.g. [0]")
    done, errors = [], []
    for seed in tqdm(seeds, desc=name or config.variant, unit="run", disable=len(seeds) == 1):
        one = config.model_copy(update={"seed": seed})
        try:
            done.append(execute(one, root=root, name=name, device=device, rerun=rerun))
        except Exception as error:  # noqa: BLE001 - the other seeds may do better; the run itself is marked failed
            errors.append(error)
    if not done:
        raise errors[0]
    for error in errors:
        traceback.print_exception(error)
    return done


def completed(store: Store, config: RunConfig) -> Run | None:
    """The complete run of a resolved configuration, None if there is none yet."""
    return next((r for r in store.runs() if r.id == config.run_id and r.status == "complete"), None)


def check_data(done: Run) -> None:
    """Refuse a complete run of a user's file that has changed since.

    Raises:
        ValueError: the file holds something else now.
    """
    dataset, made_from = done.config["data"]["dataset"], done.info["environment"].get("data_sha256")
    if made_from and Path(dataset).is_file() and samples.digest(dataset) != made_from:
        raise ValueError(f"{dataset} has changed since run {done.id} was made; make the run anew with --rerun")


def stored_config(store: Store, run_id: str) -> RunConfig:
    """The configuration of a stored run, given by its id or the beginning of it.

    Raises:
        RunNotFoundError: no such run.
        ConfigError: a version of labkit with other settings stored it.
    """
    found = store.open(run_id)
    return of_run(found.config, found.id)


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):  # torch built without CUDA asserts
        raise ValueError(
            f"device {name!r} is not available here; use cpu, or auto for CUDA where there is one"
        ) from None
    return device


def git_state() -> dict[str, Any]:
    """Commit and whether the tree is changed; empty outside a repository."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(here, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _check_raw_items(config: RunConfig, dataset: str, corruptions: Sequence[str], attacked: Sequence[str]) -> None:
    if samples.has_raw_items(config):
        return
    if raw := [name for name in corruptions if conditions.is_raw(name)]:
        raise ConfigError(
            f"evaluation.corruptions names {', '.join(raw)}, but {dataset} has no raw items to corrupt; corrupt its "
            "features instead, e.g. feature_noise"
        )
    if raw := [name for name in attacked if attacks.parsed(name).inputs == "pixels"]:
        raise ConfigError(
            f"evaluation.attacks names {', '.join(raw)}, but {dataset} has no raw pictures to attack; attack its "
            "features instead, e.g. pgd_linf_features"
        )


def _fill(run: Run, config: RunConfig, content: samples.Samples, device: torch.device) -> None:
    started = time.perf_counter()
    run.write_points(samples.points(config, content))
    (run.folder / "log.jsonl").touch()  # closed forms log nothing: their history is empty, not missing
    aligner, budget = _train(run, config, content, device)
    checkpoint = run.checkpoint_path("aligner")
    aligner.save(checkpoint)
    for file in sorted(checkpoint.iterdir()):
        run.register(file)
    shared = aligner.embed(content.all).to("cpu")
    for m in shared.modalities:
        run.write_embedding(m, FINAL, shared.z[m].numpy())
        run.write_embedding(m, "raw", content.all.z[m].numpy())
    frames.write_principal(run, shared)
    raw, attack = None, config.evaluation.attacks
    if attack.names or any(map(conditions.is_raw, config.evaluation.corruptions)):
        raw = RawFeatures(config.data, content.all, root=cache_root(run.folder.parent), device=device)
    measured = evaluate(
        aligner,
        content.train,
        content.test,
        config.evaluation,
        seed=config.seed,
        raw=raw,
        validation=content.validation,
    )
    for metric, field in measured.fields.items():
        run.write_field(metric, FINAL, field)
    run.write_scores(measured.scores, replace={})  # an interrupted attempt may have been made by other code
    attacker = Attacks(content.train, content.test, samples=attack.samples, raw=raw)
    grid = attacker.grid(attack.names, severities=attack.severities)
    measure(run, aligner, attacker, grid, resamples=config.evaluation.bootstrap, seed=config.seed)
    skipped = [*measured.skipped, *attacker.skipped]
    run.write_skipped([asdict(one) for one in skipped])
    for one in skipped:
        warnings.warn(f"run {run.id}: {one}", stacklevel=2)
    run.write_budget(budget | {"total_seconds": time.perf_counter() - started + budget["earlier_seconds"]})


def _train(
    run: Run, config: RunConfig, content: samples.Samples, device: torch.device
) -> tuple[variants.AlignerBase, dict[str, Any]]:
    """The fitted aligner and what it cost; an interrupted training goes on if the code is the same."""
    origin = {name: run.info[name] for name in ("git", "environment")}
    checkpoint = Checkpoint(_training_file(run), origin)
    aligner: variants.AlignerBase = variants.get(config.variant)(
        config.options,
        training=config.training,
        seed=config.seed,
        device=device,
        log=run.log,
        checkpoint=checkpoint,
        watch=Snapshots(run, lambda: aligner.embed(content.all)),
    )
    memory, started = Memory(device), time.perf_counter()
    aligner.fit(content.train, content.validation)
    seconds = time.perf_counter() - started
    fitted = aligner.fitted
    return aligner, {
        "train_seconds": seconds + (fitted.earlier_seconds if fitted else 0.0),
        "earlier_seconds": fitted.earlier_seconds if fitted else 0.0,
        "train_steps": fitted.steps if fitted else 0,
        "epochs": fitted.epochs if fitted else 0,
        "best_epoch": fitted.best_epoch if fitted else 0,
        "parameters": fitted.parameters if fitted else sum(v.numel() for v in aligner.state().values()),
        "peak_memory": memory.peak,
    }


def _training_file(run: Run) -> Path:
    """Where an interrupted training goes on; never listed, and gone once the run has ended."""
    return run.checkpoint_path("training.safetensors")


def _environment() -> dict[str, str]:
    packages = ("torch", "numpy", "scipy", "scikit-learn", "pandas")
    versions = {name: metadata.version(name) for name in packages}
    return {"labkit": __version__, "python": platform.python_version(), "platform": platform.system(), **versions}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
