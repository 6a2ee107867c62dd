"""Greedy decoding of many prompts at once over glassllm's weights, with a KV cache.

The same network as the package's own (RMSNorm, RoPE, grouped-query attention, SwiGLU, tied
embeddings), in NumPy without its autograd. Prompts are padded on the left, so that all next tokens
are in one column; padding is masked as a key and does not count as a position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_MASKED = np.float32(-1e30)  # finite: a padded query sees nothing, and must not become NaN


@dataclass(frozen=True, slots=True)
class Place:
    """Where new columns stand: behind ``filled``; ``mask`` is True where a query may not look."""

    cos: Floats
    sin: Floats
    mask: NDArray[np.bool_]
    filled: int


@dataclass(frozen=True, slots=True)
class Layer:
    norm1: Floats
    wq: Floats
    wk: Floats
    wv: Floats
    wo: Floats
    norm2: Floats
    gate: Floats
    up: Floats
    down: Floats


class Decoder:
    """``weights`` are glassllm's named parameters; ``config`` is its ``Config``."""

    def __init__(self, weights: Mapping[str, Floats], config: Any) -> None:
        self.max_len = int(config.max_len)
        self._heads, self._kv_heads = int(config.n_heads), int(config.n_kv_heads)
        self._head_size = int(config.d_model) // self._heads
        self._eps = np.float32(config.eps)
        self._embedding = weights["E"]
        self._norm = weights["norm_f.gamma"]
        self._layers = [_layer(weights, f"blocks.{i}.") for i in range(config.n_layers)]
        theta = config.rope_base ** (-2.0 * np.arange(self._head_size // 2) / self._head_size)
        angles = np.outer(np.arange(self.max_len), theta)
        self._cos, self._sin = np.cos(angles).astype("f4"), np.sin(angles).astype("f4")

    def greedy(
        self,
        prompts: Sequence[Sequence[int]],
        n_new: Sequence[int],
        on_prefilled: Callable[[], None] = lambda: None,
    ) -> list[list[int]]:
        """The ``n_new[i]`` most likely tokens after ``prompts[i]``; each fits into ``max_len``.

        Rows that are done leave the batch, so the longest doesn't pay for the others.
        ``on_prefilled`` is called once, when every prompt has its first token.
        """
        lengths = np.array([len(p) for p in prompts])
        width = max(len(p) for p in prompts)
        pad = width - lengths
        ids = np.zeros((len(prompts), width), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
        shape = (
            2,
            len(self._layers),
            len(prompts),
            self._kv_heads,
            width + max(n_new),
            self._head_size,
        )
        cache = np.zeros(shape, np.float32)
        out: list[list[int]] = [[] for _ in prompts]
        active, filled = np.arange(len(prompts)), 0
        while active.size:
            tokens = self._forward(ids, pad, cache, filled).argmax(axis=-1)
            if filled == 0:
                on_prefilled()
            filled += ids.shape[1]
            for row, token in zip(active.tolist(), tokens.tolist(), strict=True):
                out[row].append(token)
            keep = np.array([len(out[row]) < n_new[row] for row in active.tolist()])
            if not keep.all():
                active, tokens, pad, cache = (
                    active[keep],
                    tokens[keep],
                    pad[keep],
                    cache[:, :, keep],
                )
            ids = tokens[:, None]
        return out

    def _forward(self, ids: Ints, pad: Ints, cache: Floats, filled: int) -> Floats:
        """Logits of the last column; keys and values are written behind ``filled``."""
        columns = np.arange(filled, filled + ids.shape[1])
        positions = np.maximum(columns - pad[:, None], 0)
        keys = np.arange(filled + ids.shape[1])
        hidden = (keys > columns[:, None]) | (keys < pad[:, None, None])
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        place = Place(cos, sin, hidden[:, None, None], filled)
        x: Floats = self._embedding[ids]
        for i, layer in enumerate(self._layers):
            x = x + self._attend(self._rms(x, layer.norm1), layer, place, cache[:, i])
            x = x + _swiglu(self._rms(x, layer.norm2), layer)
        last: Floats = self._rms(x[:, -1], self._norm) @ self._embedding.T
        return last

    def _attend(self, h: Floats, layer: Layer, place: Place, cache: Floats) -> Floats:
        batch, n, _ = h.shape
        end = place.filled + n
        q = _rotate(self._split(h @ layer.wq, self._heads), place)
        cache[0, :, :, place.filled : end] = _rotate(
            self._split(h @ layer.wk, self._kv_heads), place
        )
        cache[1, :, :, place.filled : end] = self._split(h @ layer.wv, self._kv_heads)
        grouped = q.reshape(batch, self._kv_heads, -1, n, self._head_size)
        keys, values = cache[0, :, :, None, :end], cache[1, :, :, None, :end]
        scores = grouped @ keys.swapaxes(-1, -2) / np.float32(math.sqrt(self._head_size))
        scores = np.where(place.mask, _MASKED, scores)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ values
        heads = mixed.reshape(batch, self._heads, n, self._head_size)
        out: Floats = heads.transpose(0, 2, 1, 3).reshape(batch, n, -1) @ layer.wo
        return out

    def _split(self, x: Floats, heads: int) -> Floats:
        batch, n, _ = x.shape
        return x.reshape(batch, n, heads, self._head_size).transpose(0, 2, 1, 3)

    def _rms(self, x: Floats, gamma: Floats) -> Floats:
        mean_square = (x * x).mean(axis=-1, keepdims=True)
        out: Floats = x / np.sqrt(mean_square + self._eps) * gamma
        return out


def _layer(weights: Mapping[str, Floats], prefix: str) -> Layer:
    names = (
        "norm1.gamma",
        "attn.W_Q",
        "attn.W_K",
        "attn.W_V",
        "attn.W_O",
        "norm2.gamma",
        "ffn.W1",
        "ffn.W3",
        "ffn.W2",
    )
    return Layer(*(np.ascontiguousarray(weights[prefix + name]) for name in names))


def _rotate(x: Floats, place: Place) -> Floats:
    cos, sin = place.cos, place.sin
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out


def _swiglu(h: Floats, layer: Layer) -> Floats:
    gate = h @ layer.gate
    e = np.exp(-np.abs(gate))
    sigmoid = np.where(gate >= 0, 1 / (1 + e), e / (1 + e))
    out: Floats = (gate * sigmoid * (h @ layer.up)) @ layer.down
    return out
