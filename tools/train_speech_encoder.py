"""Learns the small speech encoder from the bundled clips, writes its weights and features, and measures both.

    python tools/train_speech_encoder.py train          # weights, clean features, manifest; under a minute
    python tools/train_speech_encoder.py score          # a table over the ten stored splits; about five minutes

Everything is in closed form and seeded: there are no epochs, and nothing to resume. What is learned, and why no teacher
and no pair takes part in it, is said in `labkit/encoders/speech.py`. Needs labkit with its extra `encoders`, and goes
fastest on one thread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import pandas as pd
import torch
import typer
from safetensors.torch import save_file
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from tqdm import tqdm

from labkit import encoders, variants
from labkit.data.stamps import BUNDLE, Stamps
from labkit.encoders.speech import WEIGHTS
from labkit.encoders.speech_net import ATOMS, FEATURES, Cepstra, Dictionary, SpeechNet, pieces
from labkit.types import Embeddings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

SPEECH = ("speech_fr", "speech_es")
NAME = "speech_small"
PIECES = 20_000  # of each length, to learn whitening and atoms from
FLOOR = 0.1  # of the largest standard deviation, added to all before dividing by them
RIDGE = 0.3  # of the two readings of Whisper's features, times the mean square of the responses
HELD = 0.2  # of the groups, to test the reading of Whisper's features

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, eq=False)
class Clips:
    """Every clip of the bundle: its cepstra, modality (0 French, 1 Spanish), row in the table and caption group."""

    cepstra: list[Tensor]
    language: np.ndarray
    row: np.ndarray
    group: np.ndarray


@app.command()
def train(
    seed: Annotated[int, typer.Option(help="of the pieces and atoms that are drawn")] = 0,
    bundle: Annotated[Path, typer.Option(help="folder of the bundle, which receives the features")] = BUNDLE,
) -> None:
    """Learn the encoder from all clips, and write its weights and the clean features of the clips it has heard."""
    clips = read_clips(Stamps(bundle))
    network = learn(clips.cepstra, seed)
    halves = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    _save(halves, WEIGHTS)
    _write_features(bundle, encoders.get(NAME))
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size / 1e6:.2f} MB")
    print(json.dumps(read_teacher(Stamps(bundle), clips, seed)))


@app.command()
def score(seeds: Annotated[int, typer.Option(help="how many of the ten stored splits", min=2, max=10)] = 10) -> None:
    """Retrieval by CCA on test groups, with features of Whisper, of this encoder, and of encoders distilled from it.

    Rows that end in "unheard" are learned without the clips of the split's test groups, the others with all clips.
    """
    stamps = Stamps()
    clips, everything, splits = read_clips(stamps), stamps.load(), stamps.splits()
    rows = []
    for seed in tqdm(range(seeds), desc="splits", unit="split"):
        part = splits[f"seed_{seed}"].to_numpy()
        tested = np.isin(clips.group, everything.groups.numpy()[part == "test"])
        for name, features in candidates(clips, everything, ~tested, seed).items():
            recall = {f"{m} -> text, image": _retrieval(everything, m, features.get(m), part) for m in SPEECH}
            rows.append({"features": name, **recall})
    table = pd.DataFrame(rows).groupby("features", sort=False).agg(["mean", "sem"])
    print(table.to_string(float_format="{:.3f}".format))


def read_clips(stamps: Stamps) -> Clips:
    """Cepstra of all clips of the bundle, both languages."""
    front, groups = Cepstra(), stamps.points()["group"].to_numpy()
    found = [
        (language, row, front(torch.from_numpy(wave)))
        for language, modality in enumerate(SPEECH)
        for row, wave in enumerate(tqdm(stamps.items(modality), desc=modality, unit="clip"))
        if wave is not None
    ]
    row = np.array([row for _, row, _ in found])
    return Clips([c for *_, c in found], np.array([language for language, *_ in found]), row, groups[row])


def learn(cepstra: Sequence[Tensor], seed: int) -> SpeechNet:
    """Dictionaries of all scales, and the principal components of the standardized responses to the clips."""
    generator, network = torch.Generator().manual_seed(seed), SpeechNet()
    for dictionary in cast("Iterable[Dictionary]", network.scales):
        found = torch.cat([pieces(clip, dictionary.scale) for clip in cepstra])
        found = found[torch.randperm(len(found), generator=generator)[:PIECES]]
        deviation, axes = _principal(found, dictionary.scale.components, seed)
        dictionary.mean.copy_(found.mean(dim=0))
        dictionary.whiten.copy_(axes / (deviation + FLOOR * deviation[0]))
        dictionary.atoms.copy_(dictionary.white(found[:ATOMS]))
    responses = torch.stack([network.responses(clip) for clip in tqdm(cepstra, desc="responses", unit="clip")])
    center, deviation = responses.mean(dim=0), responses.std(dim=0) + 1e-6
    _, axes = _principal((responses - center) / deviation, FEATURES, seed)
    network.center.copy_(center)
    network.readout.copy_(axes / deviation[:, None])
    return network


def candidates(
    clips: Clips, everything: Embeddings, heard: Bool[np.ndarray, " n"], seed: int
) -> dict[str, dict[str, Tensor]]:
    """Features of both languages by name of what made them; Whisper's are those of the bundle."""
    found: dict[str, dict[str, Tensor]] = {"whisper_base": {}}
    for name, kept in (("", np.ones_like(heard)), (", unheard", heard)):
        network = learn([clip for clip, is_kept in zip(clips.cepstra, kept, strict=True) if is_kept], seed)
        responses = torch.stack([network.responses(clip) for clip in clips.cepstra])
        features = (responses - network.center) @ network.readout
        found[NAME + name] = _placed(clips, features, len(everything))
        teacher = _of_clips(clips, everything)
        found["distilled" + name] = _placed(clips, _read(responses, teacher, kept), len(everything))
    return found


def read_teacher(stamps: Stamps, clips: Clips, seed: int) -> dict[str, float]:
    """How much of Whisper's features a linear map reads from this encoder's, on groups that the map has not seen.

    Cosine is between standardized vectors; recall is of the clip's own vector among those of all held-out clips.
    """
    everything = stamps.load(SPEECH)
    student = stamps.load(SPEECH, encoders=dict.fromkeys(SPEECH, NAME))
    groups = np.random.default_rng(seed).permutation(np.unique(clips.group))
    kept = ~np.isin(clips.group, groups[: round(HELD * len(groups))])
    seen, unseen = torch.from_numpy(kept), torch.from_numpy(~kept)
    teacher = _of_clips(clips, everything)
    center, deviation = teacher[seen].mean(dim=0), teacher[seen].std(dim=0)
    read = _read(_of_clips(clips, student), teacher, kept)
    guess, truth = (read - center) / deviation, (teacher - center) / deviation
    similarity = normalize(guess[unseen], dim=1) @ normalize(truth[unseen], dim=1).T
    hits = (similarity > similarity.diagonal()[:, None]).sum(dim=1) < 10
    return {
        "clips": int(kept.sum()),
        "held_out": int((~kept).sum()),
        "cosine_fitted": round(float(cosine_similarity(guess[seen], truth[seen]).mean()), 3),
        "cosine_held_out": round(float(cosine_similarity(guess[unseen], truth[unseen]).mean()), 3),
        "recall_at_10_held_out": round(float(hits.double().mean()), 3),
    }


def _read(x: Float[Tensor, "n d"], y: Float[Tensor, "n e"], kept: Bool[np.ndarray, " n"]) -> Float[Tensor, "n e"]:
    """Ridge regression of y on x, fitted to the rows `kept`, for all rows."""
    rows = torch.from_numpy(kept)
    z = (x - x[rows].mean(dim=0)) / (x[rows].std(dim=0) + 1e-6)
    kernel = (z @ z[rows].T / z.shape[1]).double()
    center = y[rows].mean(dim=0).double()
    shift = RIDGE * torch.eye(int(rows.sum()), dtype=torch.float64)
    return (kernel @ torch.linalg.solve(kernel[rows] + shift, y[rows].double() - center) + center).float()


def _retrieval(everything: Embeddings, modality: str, features: Tensor | None, part: np.ndarray) -> float:
    """Mean R@10 of both directions between the clips and captions, and the clips and pictures, of the test split."""
    data = everything.select((modality, "text", "image"))
    data = data if features is None else data.with_z({**data.z, modality: features})
    fit, validation, test = (data.take(np.flatnonzero(part == name)) for name in ("train", "validation", "test"))
    placed = variants.get("cca")().fit(fit, validation).embed(test)
    there = placed.present[modality]
    same = placed.groups[there][:, None] == placed.groups[there]
    clips = normalize(placed.z[modality][there], dim=1)
    similarity = [clips @ normalize(placed.z[m][there], dim=1).T for m in ("text", "image")]
    return float(np.mean([_hits(s, same) for pair in similarity for s in (pair, pair.T)]))


def _hits(similarity: Float[Tensor, "n n"], same: Bool[Tensor, "n n"]) -> float:
    return float(same.gather(1, similarity.topk(10, dim=1).indices).any(dim=1).double().mean())


def _of_clips(clips: Clips, everything: Embeddings) -> Float[Tensor, "n d"]:
    """Stored features of the clips, in their order."""
    return torch.stack([everything.z[SPEECH[m]][row] for m, row in zip(clips.language, clips.row, strict=True)])


def _placed(clips: Clips, features: Tensor, n: int) -> dict[str, Tensor]:
    """Features of the clips by modality, in the rows of the table."""
    placed = {modality: torch.zeros(n, features.shape[1]) for modality in SPEECH}
    for language, modality in enumerate(SPEECH):
        mine = clips.language == language
        placed[modality][clips.row[mine]] = features[mine]
    return placed


def _principal(x: Float[Tensor, "n d"], k: int, seed: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Standard deviations along the first principal axes of the rows, and the axes."""
    found = PCA(k, random_state=seed).fit(x.numpy())
    return torch.from_numpy(found.explained_variance_).float().sqrt(), torch.from_numpy(found.components_.T).float()


def _write_features(bundle: Path, encoder: encoders.Encoder) -> None:
    """Clean features of the bundle's clips beside Whisper's, and what made them in the manifest."""
    stamps, tensors = Stamps(bundle), {}
    for modality in SPEECH:
        items = stamps.items(modality)
        tensors[modality] = torch.zeros(len(items), encoder.dim, dtype=torch.float16)
        present = torch.tensor([item is not None for item in items])
        tensors[modality][present] = encoder.encode([item for item in items if item is not None]).half()
    file = f"features-{encoder.name}.safetensors"
    _save(tensors, bundle / file)
    manifest = stamps.manifest()
    manifest["files"][file] = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    manifest["more_encoders"] = {encoder.name: {**encoder.info(), "file": file, "modalities": list(SPEECH)}}
    part = bundle / "manifest.json.part"
    part.write_text(json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, bundle / "manifest.json")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    part = path.with_name(path.name + ".part")
    save_file(tensors, part)
    part.chmod(0o644)  # safetensors writes for the owner only
    os.replace(part, path)


if __name__ == "__main__":
    app()
