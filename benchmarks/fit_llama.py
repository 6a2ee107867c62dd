"""Fits the coefficients of ``triton_models/simulation.py`` to public measurements.

    python benchmarks/fit_llama.py DATA_FOLDER

The folder holds ``bench/splitwise_perf_model.csv.gz``, ``bench/vidur_*.csv.gz`` and
``bench/vllm_llama3-8b_h100_load_sweep.csv``. Every fit is by least squares of relative errors.
"""

from __future__ import annotations

import csv
import gzip
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HBM_BYTES_PER_US = 3.35e6  # H100 SXM's data sheet: 3.35 TB/s
KV_BYTES_PER_TOKEN_8B = 32 * 2 * 8 * 128 * 2  # layers, K and V, KV heads, head size, fp16
MIN_LINEAR_TOKENS = 512  # below, reading the weights takes longer than computing


@dataclass(frozen=True, slots=True)
class Step:
    """One measured decode step; ``prefill_tokens`` were mixed into it."""

    batch_size: float
    context_tokens: float
    prefill_tokens: float
    us: float


def solve(rows: Iterable[Iterable[float]], us: Iterable[float]) -> tuple[list[float], float]:
    """Coefficients and the mean relative error; each row is weighted by 1/time."""
    matrix, target = np.array([list(r) for r in rows]), np.array(list(us))
    found = np.linalg.lstsq(matrix / target[:, None], np.ones_like(target), rcond=None)[0]
    return [float(c) for c in found], _error(matrix @ found, target)


def fit_prefill(points: dict[int, float]) -> tuple[float, float, float, float]:
    """``{tokens: us}`` to (floor, base, per token, mean relative error) in microseconds."""
    floor = statistics.median(us for n, us in points.items() if n < MIN_LINEAR_TOKENS)
    linear = {n: us for n, us in points.items() if n >= MIN_LINEAR_TOKENS}
    (base, token), _ = solve([(1.0, n) for n in linear], linear.values())
    tokens, us = np.array(list(points)), np.array(list(points.values()))
    return floor, base, token, _error(np.maximum(floor, base + token * tokens), us)


def fit_steps(
    steps: list[Step], *, prefill_token_us: float = 0.0, context_token_us: float | None = None
) -> tuple[float, float, float, float]:
    """(step, per sequence, per context token, mean relative error); the last two may be given."""
    us = [s.us - prefill_token_us * s.prefill_tokens for s in steps]
    if context_token_us is None:
        rows = [(1.0, s.batch_size, s.context_tokens) for s in steps]
        (step, sequence, context), error = solve(rows, us)
        return step, sequence, context, error
    us = [u - context_token_us * s.context_tokens for u, s in zip(us, steps, strict=True)]
    (step, sequence), error = solve([(1.0, s.batch_size) for s in steps], us)
    return step, sequence, context_token_us, error


def splitwise_70b(folder: Path) -> tuple[dict[int, float], list[Step]]:
    """GPU microseconds (time of two H100, times two) of llama2-70b: prefills and steps."""
    prefills: dict[int, list[float]] = defaultdict(list)
    steps: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for row in _rows(folder / "splitwise_perf_model.csv.gz"):
        kind = (row["model"], row["hardware"], row["tensor_parallel"])
        prompt, batch, tokens = (int(row[k]) for k in ("prompt_size", "batch_size", "token_size"))
        if kind != ("llama2-70b", "h100-80gb", "2") or batch == 64 or tokens > 512:
            continue  # batch 64: a prefill faster than that of batch 8; above 512: stopped early
        prefills[prompt * batch].append(2_000 * float(row["prompt_time"]))
        steps[prompt, batch, tokens].append(2_000 * float(row["token_time"]))
    return {n: statistics.median(us) for n, us in sorted(prefills.items())}, [
        Step(batch, batch * (prompt + tokens / 2), 0.0, statistics.median(us))
        for (prompt, batch, tokens), us in sorted(steps.items())
    ]


def vidur_us(path: Path, layers: int, tensor_parallel: int = 1) -> dict[int, float]:
    """Time of all linear layers by number of tokens."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in _rows(path):
        if int(row["num_tensor_parallel_workers"]) == tensor_parallel:
            found[int(row["num_tokens"])].append(
                sum(
                    float(v or 0)
                    for k, v in row.items()
                    if k.endswith(".median") and not k.startswith("time_stats.emb")
                )
            )
    return {n: 1_000 * layers * statistics.median(ms) for n, ms in sorted(found.items())}


def vidur_8b(folder: Path) -> dict[int, float]:
    """Llama-3-8B on an H100: its A100 times by the 70B's ratio of H100 to A100."""
    a100 = vidur_us(folder / "vidur_a100_meta-llama_Meta-Llama-3-8B_mlp_median.csv.gz", 32)
    slow = vidur_us(folder / "vidur_a100_meta-llama_Meta-Llama-3-70B_mlp_median.csv.gz", 80)
    fast = vidur_us(folder / "vidur_h100_meta-llama_Llama-2-70b-hf_mlp_median.csv.gz", 80)
    return {n: us * fast[n] / slow[n] for n, us in a100.items() if n in fast and n in slow}


def sweep_8b(folder: Path) -> list[Step]:
    """vLLM without prefix caching, stages that kept up with the requested rate."""
    steps = []
    for row in _rows(folder / "vllm_llama3-8b_h100_load_sweep.csv"):
        f = {k: float(v) for k, v in row.items() if k != "config"}
        if row["config"] != "vllm" or f["achieved_rps"] < 0.97 * f["requested_rps"]:
            continue
        us = 1e6 * (f["latency_s_p50"] - f["ttft_s_p50"]) / (f["output_len_mean"] - 1)
        batch = max(1.0, f["req_s"] * f["latency_s_p50"])
        context = batch * (f["prompt_len_mean"] + f["output_len_mean"] / 2)
        steps.append(Step(batch, context, f["req_s"] * us / 1e6 * f["prompt_len_mean"], us))
    return steps


def main(data: Path) -> None:
    folder = data / "bench"
    prefills, steps = splitwise_70b(folder)
    floor, base, token, error = fit_prefill(prefills)
    _show("LLAMA_70B", (floor, base, token), fit_steps(steps), error)
    vidur = vidur_us(folder / "vidur_h100_meta-llama_Llama-2-70b-hf_mlp_median.csv.gz", 80, 2)
    share = 2 * fit_prefill(vidur)[2] / token
    print(f"  vidur's linear layers per token: {share:.0%} of the above")
    floor, base, token, error = fit_prefill(vidur_8b(folder))
    context_us = KV_BYTES_PER_TOKEN_8B / HBM_BYTES_PER_US
    fitted = fit_steps(sweep_8b(folder), prefill_token_us=token, context_token_us=context_us)
    _show("LLAMA_8B", (floor, base, token), fitted, error)


def _show(
    name: str,
    prefill: tuple[float, float, float],
    steps: tuple[float, float, float, float],
    error: float,
) -> None:
    print(name)
    for label, value in zip(("floor", "base", "token"), prefill, strict=True):
        print(f"  prefill_{label}_us={value:.2f}")
    for label, value in zip(("step", "step_sequence", "step_context_token"), steps, strict=False):
        print(f"  {label}_us={value:.4f}")
    print(f"  mean error: prefill {error:.1%}, step {steps[3]:.1%}")


def _rows(path: Path) -> list[dict[str, str]]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return list(csv.DictReader(text.decode().splitlines()))


def _error(fitted: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float(np.mean(np.abs(fitted / target - 1)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
