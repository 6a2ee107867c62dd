"""The tiny language model behind Triton: texts in, greedy continuations and token counts out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import glassllm  # type: ignore[import-not-found]  # only in Triton's environment
import numpy as np

from metering.errors import MeteringError
from metering.usage import Operation
from triton_models.emitter import backend
from triton_models.emitter.metered import MeteredModel, Served
from triton_models.tiny_llm.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a request, tokenized."""

    ids: list[int]
    max_tokens: int


class TinyLlm(MeteredModel):
    """All rows of all requests of a batch are decoded together."""

    operation: ClassVar[Operation] = "text_completion"

    def load(self) -> None:
        model, self._tokenizer = glassllm.load_pretrained("en")
        weights = {name: p.data for name, p in model.named_parameters().items()}
        self._decoder = Decoder(weights, model.cfg)

    def serve(self, requests: Sequence[backend.Request]) -> list[Served]:
        asked = [self._parse(r) for r in requests]
        prompts = [p for rows in asked if not isinstance(rows, str) for p in rows]
        decoded = iter(self._decode(prompts) if prompts else ())
        return [
            Served(error=rows)
            if isinstance(rows, str)
            else self._answer(rows, [next(decoded) for _ in rows])
            for rows in asked
        ]

    def _decode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        stamps_ns = [time.monotonic_ns()]
        decoded = self._decoder.greedy(
            [p.ids for p in prompts],
            [p.max_tokens for p in prompts],
            lambda: stamps_ns.append(time.monotonic_ns()),
        )
        begun_ns, prefilled_ns, *_ = stamps_ns
        self.tell_phases(
            prefill_ns=prefilled_ns - begun_ns, decode_ns=time.monotonic_ns() - prefilled_ns
        )
        return decoded

    def _parse(self, request: backend.Request) -> list[Prompt] | str:
        texts = backend.tensor(request, "TEXT").reshape(-1).tolist()
        limits = backend.tensor(request, "MAX_TOKENS").reshape(-1).tolist()
        try:
            return [self._prompt(t, n) for t, n in zip(texts, limits, strict=True)]
        except MeteringError as exc:
            return str(exc)

    def _prompt(self, text: bytes, max_tokens: int) -> Prompt:
        limit = self._decoder.max_len
        if max_tokens < 1:
            raise MeteringError(f"MAX_TOKENS={max_tokens}: at least 1")
        try:
            ids = self._tokenizer.encode(text.decode())
        except UnicodeDecodeError as exc:
            raise MeteringError(f"TEXT is not UTF-8: {exc}") from exc
        if not ids:
            raise MeteringError("TEXT is empty: at least one token")
        if len(ids) + max_tokens > limit:
            raise MeteringError(
                f"TEXT has {len(ids)} tokens, with MAX_TOKENS={max_tokens} that is more than the "
                f"context of {limit} tokens"
            )
        return Prompt(ids, max_tokens)

    def _answer(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[int]]) -> Served:
        texts = [[self._tokenizer.decode(ids).encode()] for ids in outputs]
        return Served(
            outputs={
                "TEXT": np.array(texts, dtype=np.object_),
                "INPUT_TOKENS": np.array([[len(p.ids)] for p in prompts], np.int32),
                "OUTPUT_TOKENS": np.array([[len(ids)] for ids in outputs], np.int32),
            },
            input_tokens=sum(len(p.ids) for p in prompts),
            output_tokens=sum(len(ids) for ids in outputs),
            row_tokens=_row_tokens(prompts, outputs) if len(prompts) > 1 else (),
        )


def _row_tokens(
    prompts: Sequence[Prompt], outputs: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    return [(len(p.ids), len(ids)) for p, ids in zip(prompts, outputs, strict=True)]
