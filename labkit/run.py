"""One run: data in, a complete folder of the run store out.

    run = labkit.run.execute(RunConfig(variant="gotma", seed=1))

The folder's name is a hash of the resolved configuration: a complete run is returned as it is, an interrupted or failed
one is taken up again.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from labkit import __version__, data, project, variants
from labkit.config import RunConfig, parse
from labkit.corruptions import CORRUPTIONS
from labkit.data.pairing import unpair
from labkit.evaluate import evaluate
from labkit.store import Run, Store
from labkit.store.names import check_name
from labkit.train import Checkpoint
from labkit.train.monitor import Memory
from labkit.train.precision import mixed_precision
from labkit.types import Embeddings

FINAL = "final"


@dataclass(frozen=True, eq=False)
class Samples:
    """What a run works on.

    Attributes:
        all: every sample, in the order of the run's `points.parquet`.
        train: training samples, with the configured share of their items missing and of their pairs cut.
        validation: validation samples, likewise.
        test: test samples, complete.
        split: name of the split of each sample.
    """

    all: Embeddings
    train: Embeddings
    validation: Embeddings
    test: Embeddings
    split: np.ndarray


def resolve(config: RunConfig) -> RunConfig:
    """`config` with aliases resolved, paths absolute and every default of the variant written out.

    Raises:
        UnknownNameError: unknown data set, variant or corruption.
        ConfigError: an option that the variant does not have or accept.
        ValueError: fewer modalities than the variant is defined for.
    """
    variant = variants.get(config.variant)
    variant.check_modalities(config.data.modalities)
    options = parse(variant.Options, config.options, what=f"options of variant {config.variant!r}")
    return config.model_copy(
        update={
            "data": config.data.model_copy(
                update={
                    "dataset": _dataset(config.data.dataset),
                    "options": data.check_options(config.data.dataset, config.data.options),
                }
            ),
            "variant": variant.name(),
            "options": options.model_dump(mode="json"),
            "evaluation": config.evaluation.model_copy(
                update={"corruptions": tuple(CORRUPTIONS.canonical(c) for c in config.evaluation.corruptions)}
            ),
        }
    )


def samples(config: RunConfig) -> Samples:
    """Load, split by group, drop items and cut pairs, all by the run's seed.

    Raises:
        UnknownNameError, FileNotFoundError, ValueError: the data set is not there or not usable.
    """
    for m in config.data.modalities:
        check_name(m, "modality")  # refused now, not after the training
    everything = data.load(config.data.dataset, modalities=config.data.modalities, options=config.data.options)
    rows = data.split(everything, config.seed)
    split = np.empty(len(everything), dtype=object)
    for name, index in rows.items():
        split[index] = name
    generator = torch.Generator().manual_seed(config.seed)
    parts = {name: everything.take(index) for name, index in rows.items()}
    for name in ("train", "validation"):
        parts[name] = drop_items(parts[name], config.data.missing, generator)
    parts["train"] = unpair(
        parts["train"], config.data.pairs, seed=config.seed, keep_unpaired=config.data.unpaired == "kept"
    )
    _check_items(parts)
    return Samples(everything, parts["train"], parts["validation"], parts["test"], split.astype(str))


def _check_items(parts: dict[str, Embeddings]) -> None:
    for name, part in parts.items():
        empty = [m for m in part.modalities if not bool(part.present[m].any())]
        if empty:
            raise ValueError(
                f"no {name} sample has an item of {' or '.join(map(repr, empty))}; leave it out of data.modalities, or "
                "lower data.missing"
            )


def drop_items(embeddings: Embeddings, share: float, generator: torch.Generator) -> Embeddings:
    """Drop a share of the present items completely at random; every sample keeps at least one of those it has."""
    if share == 0:
        return embeddings
    present = torch.stack(list(embeddings.present.values()), dim=1)
    order = torch.rand(present.shape, generator=generator)
    # the present item with the highest draw is the one that stays
    best = torch.where(present, order, -1.0).argmax(dim=1, keepdim=True)
    kept = (order >= share).scatter(1, best, True) & present
    return embeddings.with_z(embeddings.z, {m: kept[:, i] for i, m in enumerate(embeddings.modalities)})


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
    content = samples(config)
    run = store.create(
        config.run_id,
        name=f"{name or config.variant} seed {config.seed}",
        variant=config.variant,
        config=config.model_dump(mode="json"),
        seed=config.seed,
        data_root=_data_root(config),
        git=git_state(),
        environment=_environment() | {"data_sha256": _digest(config.data.dataset)},
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


def add_umap(found: list[Run]) -> None:
    """Compute and store the UMAP frame of complete runs that lack it; a progress bar counts them.

    Runs with fewer samples than UMAP has neighbours keep their PCA frame.
    """
    lacking = [r for r in found if not r.has("projections", "umap", FINAL) and r.info["n"] > project.NEIGHBORS]
    for one in tqdm(lacking, desc="UMAP", unit="run", disable=not lacking):
        points, modalities = one.points(), one.info["modalities"]
        shared = Embeddings(
            key=points["key"].to_numpy(dtype=str),
            z={m: torch.as_tensor(one.embedding(m, FINAL, mmap_mode=None)).float() for m in modalities},
            present={m: torch.tensor(points[f"present_{m}"].to_numpy(dtype=bool)) for m in modalities},
        )
        one.write_projection("umap", FINAL, project.umap_frame(shared))


def completed(store: Store, config: RunConfig) -> Run | None:
    """The complete run of a resolved configuration, None if there is none yet."""
    return next((r for r in store.runs() if r.id == config.run_id and r.status == "complete"), None)


def check_data(done: Run) -> None:
    """Refuse a complete run of a user's file that has changed since.

    Raises:
        ValueError: the file holds something else now.
    """
    dataset, made_from = done.config["data"]["dataset"], done.info["environment"].get("data_sha256")
    if made_from and Path(dataset).is_file() and _digest(dataset) != made_from:
        raise ValueError(f"{dataset} has changed since run {done.id} was made; make the run anew with --rerun")


def stored_config(store: Store, run_id: str) -> RunConfig:
    """The configuration of a stored run, given by its id or the beginning of it.

    Raises:
        RunNotFoundError: no such run.
        ConfigError: a version of labkit with other settings stored it.
    """
    found = store.open(run_id)
    return parse(RunConfig, found.config, what=f"run {found.id}")


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


def _fill(run: Run, config: RunConfig, content: Samples, device: torch.device) -> None:
    started = time.perf_counter()
    run.write_points(_points(config, content))
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
    run.write_projection("pca", FINAL, project.pca_frame(shared))
    measured = evaluate(aligner, content.train, content.test, config.evaluation, seed=config.seed)
    for metric, field in measured.fields.items():
        run.write_field(metric, FINAL, field)
    run.write_scores(measured.scores, replace={})  # an interrupted attempt may have been made by other code
    run.write_budget(budget | {"total_seconds": time.perf_counter() - started + budget["earlier_seconds"]})


def _train(
    run: Run, config: RunConfig, content: Samples, device: torch.device
) -> tuple[variants.AlignerBase, dict[str, Any]]:
    """The fitted aligner and what it cost; an interrupted training goes on if the code is the same."""
    origin = {name: run.info[name] for name in ("git", "environment")}
    checkpoint = Checkpoint(_training_file(run), origin)
    aligner = variants.get(config.variant)(
        config.options,
        training=config.training,
        seed=config.seed,
        device=device,
        log=run.log,
        checkpoint=checkpoint,
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


def _points(config: RunConfig, content: Samples) -> pd.DataFrame:
    everything = content.all
    if config.data.dataset in data.DATASETS:
        known = data.table(config.data.dataset, config.data.options).set_index("key").loc[everything.key]
    else:
        known = pd.DataFrame(index=everything.key)
    points = pd.DataFrame({"key": everything.key, "split": content.split, "group": everything.groups.numpy()})
    points["label"] = _labels(everything)
    for column in ("caption", "kind"):
        if column in known:
            points[column] = known[column].to_numpy()
    for m in everything.modalities:
        points[m] = known[m].to_numpy() if m in known else None
        points[f"present_{m}"] = everything.present[m].numpy()
    return points


def _labels(everything: Embeddings) -> np.ndarray:
    """Name of each sample's class, its number where classes have no names."""
    codes = np.full(len(everything), -1) if everything.label is None else everything.label.numpy()
    names = np.array([*everything.label_names, "other"])
    return names[codes] if everything.label_names else np.where(codes < 0, "other", codes.astype(str))


def _dataset(name: str) -> str:
    return str(Path(name).resolve()) if name.endswith(".npz") else data.DATASETS.canonical(name)


def _digest(dataset: str) -> str:
    """Hash of a user's file; bundled data checks its own."""
    if dataset in data.DATASETS:
        return ""
    with Path(dataset).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _data_root(config: RunConfig) -> str:
    if config.data.dataset in data.DATASETS:
        return f"bundle:{config.data.dataset}"  # generated data has no such folder, and no items to look up
    return str(Path(config.data.dataset).parent)


def _environment() -> dict[str, str]:
    packages = ("torch", "numpy", "scipy", "scikit-learn", "pandas")
    versions = {name: metadata.version(name) for name in packages}
    return {"labkit": __version__, "python": platform.python_version(), "platform": platform.system(), **versions}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
