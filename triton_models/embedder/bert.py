"""The forward pass of all-MiniLM-L6-v2 (a BERT of 6 layers) in NumPy.

Post-norm layers, exact GELU, mean pooling over the real tokens, L2 norm; as in the model card of
sentence-transformers/all-MiniLM-L6-v2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAX_TOKENS = 256  # sentence_bert_config.json
_HEADS = 12
_EPS = np.float32(1e-12)
_MASKED = np.float32(-1e30)


class Bert:
    """``weights`` are the tensors of ``model.safetensors``, by their names there."""

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self._w = {
            name: np.ascontiguousarray(
                w.T if name.endswith("weight") and w.ndim == 2 and "encoder" in name else w,
                dtype=np.float32,
            )
            for name, w in weights.items()
            if name.startswith(("embeddings.", "encoder.")) and not name.endswith("position_ids")
        }
        self._layers = 1 + max(int(n.split(".")[2]) for n in self._w if n.startswith("encoder."))
        self.size = self._w["embeddings.word_embeddings.weight"].shape[1]

    def embed(self, texts: Sequence[Sequence[int]]) -> Floats:
        """Token ids of each text (with [CLS] and [SEP]) to unit vectors, ``(len(texts), size)``."""
        width = max(len(ids) for ids in texts)
        ids = np.zeros((len(texts), width), np.int64)
        real = np.zeros((len(texts), width), np.float32)
        for row, tokens in enumerate(texts):
            ids[row, : len(tokens)] = tokens
            real[row, : len(tokens)] = 1
        w = self._w
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][:width]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        bias = np.where(real > 0, np.float32(0), _MASKED)[:, None, None, :]
        for i in range(self._layers):
            prefix = f"encoder.layer.{i}."
            x = self._norm(x + self._attend(x, bias, prefix), prefix + "attention.output.LayerNorm")
            h = _gelu(self._linear(x, prefix + "intermediate.dense"))
            x = self._norm(
                x + self._linear(h, prefix + "output.dense"), prefix + "output.LayerNorm"
            )
        pooled = (x * real[:, :, None]).sum(axis=1) / real.sum(axis=1, keepdims=True)
        unit: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit

    def _attend(self, x: Floats, bias: Floats, prefix: str) -> Floats:
        batch, n, size = x.shape
        q, k, v = (
            self._linear(x, f"{prefix}attention.self.{name}")
            .reshape(batch, n, _HEADS, size // _HEADS)
            .transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(size // _HEADS)) + bias
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        joined = mixed.transpose(0, 2, 1, 3).reshape(batch, n, size)
        return self._linear(joined, prefix + "attention.output.dense")

    def _linear(self, x: Floats, name: str) -> Floats:
        flat = x.reshape(-1, x.shape[-1]) @ self._w[name + ".weight"] + self._w[name + ".bias"]
        out: Floats = flat.reshape(*x.shape[:-1], -1)
        return out

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + _EPS)
        out: Floats = centred * scale * self._w[name + ".weight"] + self._w[name + ".bias"]
        return out


def _gelu(x: Floats) -> Floats:
    """``x·Φ(x)``; erf by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = np.zeros_like(t)
    for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly = (poly + np.float32(c)) * t
    tail = poly * np.exp(-z * z) / 2
    out: Floats = x * np.where(x >= 0, 1 - tail, tail)
    return out
